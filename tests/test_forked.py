"""A fork of the command line is what a process of its own is, to those who ask for it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from forked import ROOT, run_igos_bench
from result_folders import leave_run


@pytest.mark.parametrize("words", [["table"], ["show", "é", "a\nb", "\udcff", ""], ["plan", "seed=-1"]])
def test_it_says_and_leaves_the_same(tmp_path: Path, words: list[str]) -> None:
    leave_run(tmp_path / "results", "igos", 28, [(0.1, 0.9)])
    forked = run_igos_bench(words, tmp_path)
    left = {path: path.read_bytes() for path in tmp_path.rglob("table.*")}
    assert len(left) == (3 if words == ["table"] else 0)
    environment = {**os.environ, "PYTHONPATH": ROOT}
    process = subprocess.run(forked.args, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert vars(forked) == vars(process)
    assert {path: path.read_bytes() for path in tmp_path.rglob("table.*")} == left


def test_one_that_takes_too_long_is_killed_and_the_next_one_is_answered(tmp_path: Path) -> None:
    run_igos_bench(["--help"], tmp_path)  # the server has started
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        run_igos_bench(["check-data"], tmp_path, timeout=0.02)
    assert (raised.value.timeout, raised.value.output) == (0.02, None)
    assert "unknown command 'scor'" in run_igos_bench(["scor"], tmp_path).stderr
