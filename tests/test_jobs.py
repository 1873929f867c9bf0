"""What becomes of a sweep's jobs: none stops another, and every failure is named with where to look."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from igos_bench.config import RunConfig
from igos_bench.errors import IncompleteError, UnavailableError, UserError
from igos_bench.jobs import Jobs
from igos_bench.overrides import CONF


def attempt(jobs: Jobs, results_dir: Path, seed: int, error: Exception | None) -> None:
    def work(_config: RunConfig) -> int:
        if error:
            raise error
        return 0

    with initialize_config_dir(CONF, version_base="1.3"):
        jobs.attempt(compose("config", [f"seed={seed}", f"results_dir={results_dir}"]), work)


def test_every_failure_is_named_with_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs(sweep=True)
    for seed in range(3):
        attempt(jobs, tmp_path, seed, RuntimeError("burnt"))
    for seed in (3, 4):
        attempt(jobs, tmp_path, seed, UserError("the same for both"))
    attempt(jobs, tmp_path, 5, IncompleteError("some of its images failed, their rows in R say why"))
    attempt(jobs, tmp_path, 6, None)
    assert jobs.end() == 3
    logs = sorted(tmp_path.glob("logs/*.txt"))
    assert len(logs) == 3 and all("RuntimeError: burnt" in log.read_text() for log in logs)
    told = capsys.readouterr()
    assert "1 cells without a failure, 0 not available, 6 failed" in told.out
    lines = [line for line in told.err.splitlines() if "failed with" in line]
    for log, seed in zip(logs, ("", " with seed 1", " with seed 2"), strict=True):
        name = f"igos at 28 on efficientnet_lite0{seed}: it broke with RuntimeError; "
        assert any(name in line and str(log) in line for line in lines)
    assert any("with seed 3, igos at 28 on efficientnet_lite0 with seed 4: the same for both" in line for line in lines)
    assert any("seed 5: some of its images failed, their rows in R say why" in line for line in lines)


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").write_text("in the way")
    jobs = Jobs(sweep=True)
    attempt(jobs, tmp_path, 0, RuntimeError("burnt"))
    assert jobs.end() == 1
    assert "the whole story is above" in capsys.readouterr().err


def test_a_sweep_without_an_available_cell_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs(sweep=True)
    for seed in (0, 1):
        attempt(jobs, tmp_path, seed, UnavailableError("grad_cam has no resolution 9"))
    assert jobs.end() == 2
    told = capsys.readouterr()
    assert told.err.splitlines()[-1].startswith("igos-bench: no cell of this sweep is available: name a method")
    attempt(jobs, tmp_path, 2, None)
    assert jobs.end() == 0
