"""scripts/simulate_scale.py on a few rows: what it writes is a run that is done, and every command is measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from igos_bench.cells import read_cells
from igos_bench.errors import UserError

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import simulate_scale


@pytest.mark.long
def test_a_cell_is_written_as_a_run_leaves_it(tmp_path: Path) -> None:
    row = simulate_scale.measure_one(str(tmp_path), 2_010)
    assert (row["cells"], row["rows"], row["files"]) == (1, 2_010, 2 * 4 + 5), (
        "two ranges, of which the last has a chunk"
    )
    for part in ("table", "status", "resume"):
        assert row[f"{part}_cpu_seconds"] > 0 and row[f"{part}_seconds"] > 0.1 and row[f"{part}_mb"] > 50
    assert 0 < row["scan_seconds"] < row["resume_seconds"]
    assert row["status_mb"] < row["resume_mb"] - 100, "which is that of the process, not of its parent"
    assert not list(tmp_path.iterdir())


def test_cells_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, int, int]] = []

    def look(results: Path) -> dict[str, float]:
        found.extend((cell.method, cell.resolution, cell.n) for cell in read_cells(results))
        return {}

    monkeypatch.setattr(simulate_scale, "measure_reading", look)
    assert simulate_scale.measure_all(str(tmp_path), 15, 25) == {"cells": 15, "rows": 375}
    assert len(set(found)) == 15 and {n for *_, n in found} == {25}


def test_a_run_that_is_not_done_is_no_measurement(tmp_path: Path) -> None:
    run = simulate_scale.made_up_run(tmp_path, 20)
    simulate_scale.write_cell(run, 20)
    run.directory.records.loose(1).unlink()
    with pytest.raises(UserError, match="10 of 20 images were found done"):
        simulate_scale.run_again(tmp_path, 20)
    with pytest.raises(UserError, match="ended with 3: a word"):
        simulate_scale.measured_process("it", [sys.executable, "-c", "print('a word'); exit(3)"])
