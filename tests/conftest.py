"""Shared by the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def igos_bench(tmp_path: Path) -> Command:
    """Runs the real command line in a folder of its own."""

    def run(*words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "igos_bench", *words]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run
