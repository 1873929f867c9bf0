"""Files are there whole or not at all, and nothing is left beside them."""

from __future__ import annotations

import itertools
import os
import re
import sys
from pathlib import Path
from types import FrameType

import pytest

from igos_bench.atomic import change, write_atomically, write_inside
from igos_bench.errors import UserError


def test_a_file_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"older", flush=False)
    assert path.read_bytes() == b"older"

    def full(self: Path, target: Path) -> None:
        assert Path(self).read_bytes() == b"new" and re.fullmatch(r"[.]file[.][0-9a-f]{8}[.]tmp", self.name)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(
        UserError, match=r"cannot write .*file: No space left on device. What was finished before is kept"
    ):
        write_atomically(path, b"new")
    assert [one.name for one in path.parent.iterdir()] == ["file"] and path.read_bytes() == b"older"


def test_a_file_is_flushed_before_it_is_put_into_place_unless_said_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flush, flushed = tmp_path / "file", os.fsync, []

    def watched(file: int) -> None:
        flush(file)
        name = Path(f"/proc/self/fd/{file}").readlink().name
        flushed.append((name.startswith(".file."), path.exists()))

    monkeypatch.setattr(os, "fsync", watched)
    write_atomically(path, b"content")
    assert flushed == [(True, False)]
    write_atomically(path, b"content", flush=False)
    write_inside(tmp_path, path, b"content", flush=False)
    assert len(flushed) == 1
    write_inside(tmp_path, path, b"content", flush=True)
    assert len(flushed) == 2


def test_a_folder_is_changed_and_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "folder"
    touch, names = Path.touch, []
    monkeypatch.setattr(Path, "touch", lambda self: (names.append(self.name), touch(self)))
    change(folder)
    before = folder.stat().st_mtime_ns
    change(folder)
    assert folder.stat().st_mtime_ns > before and not list(folder.iterdir())
    assert all(re.fullmatch(r"[.]change[.][0-9a-f]{8}[.]tmp", name) for name in names) and len(set(names)) == 2
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file: File exists"):
        change(tmp_path / "file")


@pytest.mark.parametrize("what", ["write", "change"])
def test_ctrl_c_at_any_call_leaves_nothing_beside(what: str, tmp_path: Path) -> None:
    """Python raises KeyboardInterrupt where a function begins or has just been called."""
    (tmp_path / "file").write_bytes(b"old")
    for calls in itertools.count():
        left = calls

        def trace(_frame: FrameType, _event: str, _argument: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        try:
            sys.settrace(trace)
            if what == "write":
                write_atomically(tmp_path / "file", b"new")
            else:
                change(tmp_path)
        except KeyboardInterrupt:
            pass
        else:
            break
        finally:
            sys.settrace(None)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        assert (tmp_path / "file").read_bytes() in {b"old", b"new"}
    assert calls > 10, "it fell into every call there is"
