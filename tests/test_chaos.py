"""scripts/chaos.py: what it compares, and a short run of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from result_folders import leave_run

from igos_bench.csv_file import csv_text
from igos_bench.formats import COLUMNS, read_csv

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from chaos_compare import differences, torn  # noqa: E402


def edit_rows(path: Path, change: Callable[[list[dict[str, str]]], object]) -> None:
    rows = read_csv(path)
    assert rows
    change(rows)
    path.write_text(csv_text(COLUMNS, rows))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """What a run leaves."""
    directory = leave_run(tmp_path / "whole", "igos", 28, [(0.1, 0.9), (0.2, 0.8), (0.3, 0.7)])
    directory.write_provenance({"finished": "now", "requested": 3, "done": 3})
    (directory.path / "maps").mkdir()
    np.savez(directory.path / "maps" / "000000.npz", saliency_map=np.ones(3))
    rows = [row for i in (0, 1) for row in read_csv(directory.protocol_path / f"records/{i:06d}.csv") or []]
    (directory.protocol_path / "records.csv").write_text(csv_text(COLUMNS, rows))
    return tmp_path / "whole"


BREAKS = {
    "maps/000000.npz differs": lambda run: np.savez(run / "maps/000000.npz", saliency_map=np.zeros(3)),
    "curves/000001.npz is missing": lambda run: next(run.glob("*/curves/000001.npz")).unlink(),
    "records/000002.csv should not be there": lambda run: shutil.copy(
        *(next(run.glob("*/records")) / f"{i:06d}.csv" for i in (1, 2))
    ),
    "records/000000.csv differs": lambda run: edit_rows(
        next(run.glob("*/records/000000.csv")), lambda rows: rows[0].update(deletion_auc="0.1000001")
    ),
    "records.csv has not one row for each image": lambda run: edit_rows(
        next(run.glob("*/records.csv")), lambda rows: rows.append(rows[-1])
    ),
    "run.json says that not all is done": lambda run: (run / "run.json").write_text(
        '{"finished": "now", "requested": 3, "done": 2}'
    ),
}


@pytest.mark.parametrize("said", BREAKS)
def test_differences_are_found(whole: Path, tmp_path: Path, said: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(whole, broken)
    (run,) = broken.glob("runs/*/*/*/*/*")
    for path in run.glob("*/records*"):
        for part in path.glob("*.csv") if path.is_dir() else [path]:
            edit_rows(part, lambda rows: rows[0].update(explain_seconds="7.5"))
    assert differences(whole, broken) == [], "seconds are no difference"
    BREAKS[said](run)
    assert any(said in line for line in differences(whole, broken))


@pytest.mark.parametrize("pattern", ["maps/000000.npz", "*/curves/000001.npz", "*/records/000001.csv"])
def test_torn_files_are_found(whole: Path, pattern: str) -> None:
    (path,) = whole.glob(f"runs/*/*/*/*/*/{pattern}")
    assert torn(whole) == []
    path.write_bytes(path.read_bytes()[:-30])
    (found,) = torn(whole)
    assert str(path) in found


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "chaos.py"), "kills=9", "stops=3", "seed=1"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "9 kills with SIGKILL" in ended.stdout and "3 SIGTERM and SIGINT" in ended.stdout
    assert "the same: no file torn, no row lost or doubled, every byte as undisturbed" in ended.stdout
