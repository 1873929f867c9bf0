"""A disk that is full, or that nobody may write to any more: what is said and left, and that the run goes on later.

On a file system of two megabytes in memory, which root can mount.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from forked import run_igos_bench
from PIL import Image
from result_folders import leave_run

from igos_bench.errors import WriteError

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from chaos_compare import committed, differences, torn  # noqa: E402

IMAGES = 12  # their maps at 224 x 224 need 2.3 MB
QUICK = (
    *("model=timm", "model.architecture=test_resnet", "model.weights=null", "device=cpu", "data=folder"),
    *("data.root=images", "method=integrated_gradients", "method.steps=1", "resolution=224", "protocol.n_steps=2"),
)
PAGE = os.sysconf("SC_PAGE_SIZE")


def mount(*words: str | Path) -> None:
    ended = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"these tests mount a file system, for which they must be root: {ended.stderr}"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a file system of its own, of 2 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount("-t", "tmpfs", "-o", "size=2m", "none", path)
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def words(results: Path) -> list[str]:
    return [*QUICK, "chunk_size=1", f"results_dir={results}"]


def run(folder: Path, results: Path, code: int) -> str:
    """What it said on stderr."""
    ended = run_igos_bench(words(results), folder, timeout=120)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stderr


def refuse_writing(disk: Path, process: subprocess.Popen[str]) -> None:
    """Make it read-only, which is refused as long as a file is open for writing."""
    latest = time.monotonic() + 60
    while subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True, check=False).returncode:
        assert process.poll() is None and time.monotonic() < latest


def test_a_run_goes_on_once_it_can_write_again(tmp_path: Path, disk: Path) -> None:
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0)
    for i in range(IMAGES):
        Image.fromarray(pixels.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / f"images/{i:02d}.png")
    whole, results = tmp_path / "whole", disk / "results"
    run(tmp_path, whole, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "igos_bench", *words(results)], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not committed(results):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    refuse_writing(disk, process)
    output, said = process.communicate(timeout=120)
    assert process.returncode == 4, output + said
    is_one_line(said, results, "Read-only file system", "make that file system writable again")
    assert "records.csv" not in said, "that it could not be made either is not what to tell"
    before = committed(results)
    assert 0 < len(before) < IMAGES and not torn(results)

    mount("-o", "remount,rw", disk)
    is_one_line(run(tmp_path, results, 4), results, "/maps/", "No space left on device", "make room")
    more = committed(results)
    assert before.items() < more.items() and len(more) < IMAGES and not torn(results)
    assert not list(results.rglob("*.tmp")), "what could not be written whole takes no room"

    mount("-o", "remount,size=8m", disk)
    assert run(tmp_path, results, 0) == ""
    assert more.items() < committed(results).items(), "nothing was computed again"
    assert differences(whole, results) == []


def is_one_line(errors: str, results: Path, *parts: str) -> None:
    # A lease could not be given back either on a disk that is read-only.
    (line,) = [line for line in errors.splitlines() if "is taken over from" not in line]
    assert line.startswith(f"igos-bench: cannot write {results}/runs/"), errors
    for part in (*parts, "What was finished before is kept", "start the same command again"):
        assert part in line


def test_wherever_room_runs_out_every_file_is_whole(disk: Path) -> None:
    areas = [(i / 300, 1 - i / 300) for i in range(300)]  # rows of several pages a chunk
    refused, pages = set(), 0
    while True:
        fill(disk, pages)
        try:
            leave_run(disk / "results", "igos", 28, areas, chunk_size=150)
            break
        except WriteError as error:
            refused.add(Path(str(error).removeprefix("cannot write ").partition(": No space left")[0]).name)
        assert torn(disk) == [] and not list(disk.rglob("*.tmp"))
        shutil.rmtree(disk / "results")
        pages += 1
    assert refused == {
        "run.json", "images.txt", "protocol.json", "000000.npz", "000000.csv", "000001.npz", "000001.csv"
    }  # fmt: skip
    assert pages > 10, "each was tried with less room than it needs, and with none"


def fill(disk: Path, pages: int) -> None:
    """Leave room for so many pages."""
    (disk / "ballast").write_bytes(b"")
    room = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(room.f_bavail * room.f_frsize - pages * PAGE))


def test_where_nothing_can_be_printed_the_work_is_done_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.radial_gradient("L").save(tmp_path / "images" / "one.png")

    def ask(words: list[str], stdout: int | str) -> tuple[int, str]:
        with open(stdout, "w") as output:  # noqa: PTH123
            ended = subprocess.run(
                [sys.executable, "-m", "igos_bench", *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
        return ended.returncode, ended.stderr

    said = "igos-bench: cannot print any more: No space left on device; what is asked for is done all the same\n"
    assert ask([*QUICK], "/dev/full") == (4, said)
    assert len(committed(tmp_path / "results")) == 1
    assert ask(["--help"], "/dev/full") == (4, said)
    reading, writing = os.pipe()
    os.close(reading)
    assert ask(["--help"], writing) == (1, ""), "nobody listens, who has nothing to be told"


def test_a_sweep_s_own_folder_that_cannot_be_made_is_one_line(tmp_path: Path, igos_bench: Command) -> None:
    (tmp_path / "file").touch()
    ended = igos_bench("-m", *QUICK, "seed=0,1", "hydra.sweep.dir=file/x")
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 4 and line.startswith("igos-bench: cannot write "), line
    assert "file/x, the folder of the sweep: Not a directory; choose another with hydra.sweep.dir=FOLDER" in line
