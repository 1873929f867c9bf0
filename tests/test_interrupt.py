"""Ctrl-C and SIGTERM, sent to real processes: how fast they end, what they say, what they keep."""

from __future__ import annotations

import csv
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from forked import run_igos_bench
from PIL import Image
from unmeasured import UNMEASURED

from igos_bench.interrupt import GRACE

IMAGES = 14
QUICK = (
    *("model=timm", "model.architecture=test_resnet", "model.weights=null", "data=folder", "data.root=images"),
    *("method=grad_cam", "resolution=14", "protocol.n_steps=10", "chunk_size=1", "results_dir=my results"),
)

STUCK = {
    # Locking a lock of C's a second time waits for ever: no signal handler of Python's runs, and no signal wakes it.
    "in a call of C": "import ctypes; c, lock = ctypes.CDLL(None), (ctypes.c_char * 64)(); c.pthread_mutex_lock(lock); "
    "print('stuck', flush=True); c.pthread_mutex_lock(lock)",
    "in code that goes on": """
import time
print('stuck', flush=True)
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
""",
}


def listen() -> None:
    """A shell may have told these tests to ignore Ctrl-C, and what they start would, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(words: Sequence[str], folder: Path, prepare: Callable[[], None] = listen) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=UNMEASURED, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=prepare,
    )  # fmt: skip


def stop(process: subprocess.Popen[str], signum: signal.Signals) -> tuple[float, str, str]:
    """Send a signal; seconds until the end, stdout, stderr."""
    sent = time.monotonic()
    process.send_signal(signum)
    try:
        output, errors = process.communicate(timeout=60)
        return time.monotonic() - sent, output, errors
    finally:
        process.kill()


def start_stuck(where: str, folder: Path, prepare: Callable[[], None] = listen) -> subprocess.Popen[str]:
    code = f"from igos_bench.interrupt import Interruption\nInterruption('go on')\n{STUCK[where]}"
    process = start(("-c", code), folder, prepare)
    assert process.stdout and process.stdout.readline() == "stuck\n"
    time.sleep(0.3)  # from the word to the deed
    return process


@pytest.mark.parametrize("where", STUCK)
def test_a_main_thread_that_does_not_end_is_ended(where: str, tmp_path: Path) -> None:
    seconds, _, errors = stop(start_stuck(where, tmp_path), signal.SIGTERM)
    assert GRACE <= seconds < 5, "it is given time, and no more"
    assert errors == "igos-bench: told to end (SIGTERM): what is finished is kept; to go on: go on\n"


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    process = start_stuck("in a call of C", tmp_path)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    seconds, _, errors = stop(process, signal.SIGINT)
    assert seconds < 1 and process.returncode == 130
    assert errors == "igos-bench: interrupted: what is finished is kept; to go on: go on\n"


def test_a_second_sigterm_cuts_nothing_short(tmp_path: Path) -> None:
    """Such as `timeout` sends, once to the process and once to its group."""
    process = start_stuck("in a call of C", tmp_path)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    seconds, _, _ = stop(process, signal.SIGTERM)
    assert seconds > GRACE - 1 and process.returncode == 143


def test_ctrl_c_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As under `nohup`, or after `&` in a script."""
    process = start_stuck("in a call of C", tmp_path, lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.kill()
    assert process.communicate()[1] == ""


def test_a_signal_at_the_very_end_changes_nothing(tmp_path: Path) -> None:
    """When all is done, and Python takes itself apart."""
    code = """
import os, sys, time
from igos_bench import __main__, cli
class Slow:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b'taken apart\\n')
        sleep(0.5)
cli.main = lambda: 3
slow = Slow()
sys.exit(__main__.main())
"""
    for signum in (signal.SIGINT, signal.SIGTERM):
        process = start(("-c", code), tmp_path)
        assert process.stdout and process.stdout.readline() == "taken apart\n"
        _, _, errors = stop(process, signum)
        assert (process.returncode, errors) == (3, "")


def test_run_sweep_and_score(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(IMAGES):
        Image.radial_gradient("L").rotate(9 * i).save(tmp_path / "images" / f"{i:02d}.png")

    process = start(("-m", "igos_bench", *QUICK), tmp_path)
    again = stopped(process, signal.SIGINT, 130, "interrupted", tmp_path, "grad_cam/14/*/paper-*")
    assert again == ["igos-bench", *QUICK], "with the quotes that the shell needs"
    done = rows(tmp_path, "grad_cam/14/*/paper-*")
    resumed = run_igos_bench(again[1:], tmp_path, timeout=120)
    assert resumed.returncode == 0, resumed.stderr
    assert f"resumed {len(done)}/{IMAGES}" in resumed.stdout
    assert rows(tmp_path, "grad_cam/14/*/paper-*")[: len(done)] == done

    score = ("score", *QUICK, "protocol=rise")
    process = start(("-m", "igos_bench", *score), tmp_path)
    again = stopped(process, signal.SIGTERM, 143, "told to end (SIGTERM)", tmp_path, "grad_cam/14/*/rise-*")
    assert again == ["igos-bench", *score]

    sweep = ("-m", *QUICK, "method=grad_cam,integrated_gradients", "resolution=14,224")
    process = start(("-m", "igos_bench", *sweep), tmp_path)
    place = "integrated_gradients/224/*/paper-*"
    again = stopped(process, signal.SIGTERM, 143, "told to end (SIGTERM)", tmp_path, place)
    assert again == ["igos-bench", *sweep]


def stopped(
    process: subprocess.Popen[str], signum: signal.Signals, code: int, what: str, folder: Path, place: str
) -> list[str]:
    """Stop a command once two chunks of this place are done; check how it ends; return the words that it names."""
    parts = f"my results/runs/test_resnet/folder/{place}/records/[0-9]*.csv"
    latest = time.monotonic() + 120
    while len(list(folder.glob(parts))) < 2:
        assert process.poll() is None and time.monotonic() < latest, process.communicate()
        time.sleep(0.01)
    seconds, _, errors = stop(process, signum)
    assert process.returncode == code, errors
    assert seconds < 5
    lines = [line for line in errors.splitlines() if "not available" not in line]
    start = f"igos-bench: {what}: what is finished is kept; to go on: "
    assert len(lines) == 1 and lines[0].startswith(start), errors
    finished = [row for path in sorted(folder.glob(parts)) for row in read(path)]
    assert rows(folder, place) == finished and 2 <= len(finished) < IMAGES, "records.csv has what was finished"
    assert not list(folder.rglob("*.tmp"))
    return shlex.split(lines[0].removeprefix(start))


def rows(folder: Path, place: str) -> list[dict[str, str]]:
    (path,) = folder.glob(f"my results/runs/test_resnet/folder/{place}/records.csv")
    return read(path)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
