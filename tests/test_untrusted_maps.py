"""Files of maps that somebody made up: nothing in them is executed, and each is a reason or damaged."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result_folders import leave_run

from igos_bench.errors import UserError
from igos_bench.foreign import read_map
from igos_bench.formats import npz


class Bomb:
    """What runs when a pickle is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def bomb(canary: Path) -> bytes:
    """A .npy that touches the canary when its objects are read."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([[Bomb(canary)]], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


MADE_UP = {
    "huge": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000000)}"),
    "beyond every integer": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 1)}"),
    "negative": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}", bytes(16)),
    "code": npy("__import__('os').mkdir('ran')"),
    "unclosed": npy("{'descr': '<f4', 'fortran_order': (((((("),
    "deep": npy("[" * 9000),
    "fields": npy("{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (1, 1)}", bytes(16)),
}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ran"


def test_a_foreign_map_with_a_pickle_runs_nothing(canary: Path) -> None:
    path = canary.with_name("map.npy")
    path.write_bytes(bomb(canary))
    with pytest.raises(UserError, match=r"map.npy cannot be read as a .npy \(Object arrays cannot be loaded"):
        read_map(path)
    assert not canary.exists()
    np.load(path, allow_pickle=True)
    assert canary.exists(), "it would have run"


@pytest.mark.parametrize("content", MADE_UP.values(), ids=MADE_UP)
def test_a_made_up_header_is_a_reason(canary: Path, content: bytes) -> None:
    path = canary.with_name("map.npy")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"map.npy (cannot be read as a .npy|holds|has the shape)"):
        read_map(path)
    assert os.listdir() == ["map.npy"]  # noqa: PTH208


@pytest.mark.parametrize("content", [None, *MADE_UP.values()], ids=["pickle", *MADE_UP])
@pytest.mark.parametrize("what", ["maps", "curves"])
def test_stored_arrays_that_somebody_changed_run_nothing(canary: Path, what: str, content: bytes | None) -> None:
    directory = leave_run(canary.with_name("results"), "igos", 28, [(0.1, 0.5), (0.2, 0.7)])
    ids = np.array(["image0", "image1"])
    directory.write_maps(0, {"image_id": ids, "saliency_map": np.zeros((2, 1, 28, 28), np.float32)})
    rows = [{"image_id": i, "status": "ok", "deletion_auc": 0.1, "insertion_auc": 0.2} for i in ids]
    directory.commit(0, {"image_id": ids}, rows)
    assert len(directory.read_rows(0)) == 2
    folder = directory.path if what == "maps" else directory.protocol_path
    with zipfile.ZipFile(folder / what / "000000.npz", "w") as archive:
        for name in ("image_id", "saliency_map", "hits", "deletion", "insertion"):
            archive.writestr(f"{name}.npy", content or bomb(canary))
    with pytest.warns(UserWarning, match=f"{what}/000000.npz is missing or damaged: chunk 0 is computed again"):
        assert directory.read_rows(0) == []
    assert what != "maps" or directory.read_maps(0) is None
    assert directory.read_results(0) == {}
    assert not canary.exists()


def test_what_is_written_has_no_pickle() -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved when allow_pickle=False"):
        npz({"a": np.array([None])})


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 140), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 330))
def test_a_flipped_map_is_a_map_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.npy"
    np.save(path, np.zeros((7, 7), np.float32))
    content = bytearray(path.read_bytes())
    for place, value in flips:
        content[place] = value
    path.write_bytes(content[: length or None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = read_map(path)
        except UserError:
            return
    assert found.dtype == np.float32 and np.isfinite(found).all()
