"""What was computed once is not lost: to another protocol, a failure, a larger limit, or a kill between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from noise import write_noise

from igos_bench import batch
from igos_bench.overrides import compose_config
from igos_bench.prepare import prepare
from igos_bench.results import Row, RunDirectory
from igos_bench.runner import execute

NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    write_noise(tmp_path / "images", NAMES)
    return [
        "model=timm", "model.architecture=mobilenetv3_small_050", "model.weights=null", "data=folder",
        f"data.root={tmp_path / 'images'}", f"results_dir={tmp_path / 'out'}", "method=integrated_gradients",
        "method.steps=2", "resolution=224", "protocol.n_steps=2", "chunk_size=3",
    ]  # fmt: skip


def run(words: Sequence[str], *more: str, explain: bool = True) -> tuple[RunDirectory, dict[str, Row]]:
    ready = prepare(compose_config([*words, *more]))
    outcome = execute(ready, lambda _count, _rows: None, explain=explain)
    return ready.directory, {row["image_id"]: row for row in outcome.rows}


def maps(directory: RunDirectory) -> dict[str, np.ndarray]:
    stored = directory.read_maps(0)
    assert stored is not None
    return dict(zip(map(str, stored["image_id"]), stored["saliency_map"], strict=True))


def fail(*_words: Any) -> Any:
    raise RuntimeError("no")


def test_another_protocol_scores_the_maps_that_are_there(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    directory, rows = run(words)
    before = (directory.path / "maps" / "000000.npz").stat().st_mtime_ns
    other, again = run(words, "protocol.n_steps=3")
    assert other.path == directory.path and other.protocol_path != directory.protocol_path
    assert (directory.path / "maps" / "000000.npz").stat().st_mtime_ns == before
    assert all(row["status"] == "ok" and row["explain_seconds"] is None for row in again.values())
    assert all(row["explain_seconds"] for row in rows.values())

    monkeypatch.setattr(batch, "deletion_insertion", fail)
    _, failed = run(words, "protocol.n_steps=4")
    assert {row["status"] for row in failed.values()} == {"failed"}
    monkeypatch.undo()
    assert set(maps(directory)) == set(NAMES), "a failure to score takes no map away"
    assert all(row["status"] == "ok" for row in run(words, "protocol.n_steps=4", explain=False)[1].values())


def test_an_image_that_fails_the_second_time_keeps_what_it_had(words: list[str], tmp_path: Path) -> None:
    directory, rows = run(words, "data.limit=2")
    done = sorted(rows)
    before = directory.read_results(0)
    path = tmp_path / "images" / done[0]
    path.write_bytes(bytes(path.stat().st_size))
    _, more = run(words)
    assert {row["status"] for row in more.values()} == {"ok"} and set(more) == set(NAMES)
    assert float(more[done[0]]["deletion_auc"]) == rows[done[0]]["deletion_auc"]
    after = directory.read_results(0)
    assert set(after) == set(NAMES)
    for key in ("map", "deletion", "insertion"):
        assert np.array_equal(after[done[0]][key], before[done[0]][key])


def test_a_smaller_limit_takes_no_rows_away(words: list[str], tmp_path: Path) -> None:
    """Where an image failed the chunk is tried again, and with fewer images than it has."""
    directory, rows = run(words)
    order = list(rows)
    path = tmp_path / "images" / order[0]
    path.write_bytes(bytes(path.stat().st_size))
    (directory.protocol_path / "records" / "000000.csv").unlink()
    _, rows = run(words)
    assert [row["status"] for row in rows.values()] == ["failed", "ok", "ok"]
    _, fewer = run(words, "data.limit=2")
    assert [row["status"] for row in fewer.values()] == ["failed", "ok"]
    after = directory.read_results(0)
    assert set(after) == set(order[1:])
    assert after[order[2]]["row"]["deletion_auc"] == str(rows[order[2]]["deletion_auc"])


def test_a_kill_while_a_chunk_is_filled_up(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps are there, rows are not: what the old rows rest on is still theirs, or they are gone."""
    directory, rows = run(words, "data.limit=2")
    monkeypatch.setattr(RunDirectory, "commit", fail)
    with pytest.raises(RuntimeError):
        run(words)
    monkeypatch.undo()
    assert set(maps(directory)) == set(NAMES)
    assert {row["image_id"] for row in directory.read_rows(0)} <= set(rows)
    assert {row["status"] for row in run(words)[1].values()} == {"ok"}


def test_rows_are_withdrawn_before_their_maps_change(words: list[str]) -> None:
    directory, _ = run(words)
    other, _ = run(words, "protocol.n_steps=3")
    stored = directory.read_maps(0)
    assert stored is not None
    directory.write_maps(0, stored)
    assert len(directory.read_rows(0)) == len(other.read_rows(0)) == 3, "the same maps"
    directory.write_maps(0, {**stored, "saliency_map": stored["saliency_map"] + 1})
    assert directory.read_rows(0) == other.read_rows(0) == []


def test_an_archive_without_what_the_rows_speak_of_is_damaged(words: list[str]) -> None:
    directory, _ = run(words)
    np.savez_compressed(directory.path / "maps" / "000000.npz", image_id=np.zeros(0, np.str_), saliency_map=np.zeros(0))
    with pytest.warns(UserWarning, match="is missing or damaged: chunk 0 is computed again"):
        assert directory.read_rows(0) == []
