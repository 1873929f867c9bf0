"""Killed with SIGKILL at any moment and started again, a run leaves the files of one that was never interrupted.

The real command, in a process group of its own, killed several times: when a file appears, while one is being written,
and at seeded random moments.
"""

from __future__ import annotations

import csv
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from glob import iglob
from pathlib import Path

import numpy as np
import pytest

from igos_bench.formats import COLUMNS

IMAGES = 6
COMMAND = (
    sys.executable, "-m", "igos_bench", "method.iterations=2", "method.path_steps=4", "protocol.n_steps=4",
    f"data.limit={IMAGES}", "chunk_size=1",
)  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}

# The chunk's three files in the order in which they are written, one that is being written, and any moment at all.
# A kill after a chunk's rows makes progress, so that the run would end before the last of a longer list.
EVENTS = ["maps/*.npz", "curves/*.npz", "records/*.csv", "**/.*.tmp", ""]
SEED = 0


def start(results: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, f"results_dir={results}"], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def files(results: Path, pattern: str) -> dict[Path, bytes]:
    """By path inside the results folder; the key of the run and of its protocol are part of it."""
    found = sorted(path for path in results.rglob(pattern) if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(results): path.read_bytes() for path in found}


def appeared(results: Path, pattern: str) -> Callable[[], bool]:
    """Whether there is now a file of this pattern that was not there, or was another, at the time of this call."""

    def present() -> set[tuple[str, int, int]]:
        seen: set[tuple[str, int, int]] = set()
        below = pattern if pattern.startswith("**") else f"**/{pattern}"
        # Path.glob breaks where a folder goes while it looks.
        for path in iglob(f"{results}/runs/*/*/*/*/*/{below}", recursive=True, include_hidden=True):  # noqa: PTH207
            try:
                status = Path(path).stat()
            except FileNotFoundError:  # renamed into its place in the meantime
                continue
            seen.add((path, status.st_ino, status.st_mtime_ns))
        return seen

    before = present()
    return lambda: bool(present() - before)


def kill_at(results: Path, event: str, delay: float) -> bool:
    """Start the run, kill it `delay` seconds after the event; False where it was done before that."""
    happened = appeared(results, event or "maps/*.npz")
    process = start(results)
    deadline = time.monotonic() + 120
    while process.poll() is None and not happened():
        assert time.monotonic() < deadline, "nothing happened in two minutes"
        time.sleep(0.0005)
    time.sleep(delay)
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == (0 if ended else -signal.SIGKILL), output
    return not ended


def without_times(content: bytes) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert all(tuple(row) == COLUMNS and None not in row.values() for row in rows), content
    return [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in rows]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_runs_end_in_the_same_bytes(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    uninterrupted = start(whole)  # beside the killed ones: a run must not depend on what else the machine does

    moments = random.Random(SEED)
    plan = [(event, 0.0 if event else moments.uniform(0, 1.5)) for event in moments.sample(EVENTS, len(EVENTS))]
    killed = 0
    committed: dict[Path, bytes] = {}
    for event, delay in plan:
        situation = f"seed {SEED}, killed {killed} times, now {event or 'anywhere'} + {delay:.3f} s of {plan}"
        killed += kill_at(broken, event, delay)
        for content in files(broken, "records/*.csv").values():
            assert len(without_times(content)) == 1, situation
        for path in [*files(broken, "maps/*.npz"), *files(broken, "curves/*.npz")]:
            with np.load(broken / path) as arrays:
                assert all(len(arrays[key]) for key in arrays), situation
        now = files(broken, "records/*.csv")
        assert committed.items() <= now.items(), f"a committed chunk was lost or computed again: {situation}"
        committed = now
    assert killed == len(plan), f"only {killed} kills: seed {SEED}, {plan}"
    assert 0 < len(committed) < IMAGES, "nothing was left to resume, or nothing to do"

    # What a kill inside a write leaves: a file beside its place, half of it or all.
    for path, content in committed.items():
        path = broken / path
        path.with_name(f".{path.name}.1.tmp").write_bytes(content)
        path.with_name(f".{IMAGES - 1:06d}.csv.1.tmp").write_bytes(content[:-40])
    output = finish(start(broken))
    assert f"resumed {len(committed)}/{IMAGES}" in output
    finish(uninterrupted)

    for pattern in ("maps/*.npz", "curves/*.npz"):
        expected = files(whole, pattern)
        assert len(expected) == IMAGES
        assert files(broken, pattern) == expected, f"{pattern}: seed {SEED}, {plan}"
    for pattern, count in (("records/*.csv", IMAGES), ("records.csv", 1)):
        expected_rows = {path: without_times(content) for path, content in files(whole, pattern).items()}
        assert len(expected_rows) == count
        found = {path: without_times(content) for path, content in files(broken, pattern).items()}
        assert found == expected_rows, f"{pattern}: seed {SEED}, {plan}"
        ids = [row["image_id"] for rows in found.values() for row in rows]
        assert len(ids) == len(set(ids)) == IMAGES
