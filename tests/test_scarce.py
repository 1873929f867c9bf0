"""Paths that are too long, memory and temporary folders that run out, a results folder that is another run's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command
from PIL import Image
from test_bad_configuration import state
from test_full_disk import disk  # noqa: F401  # a fixture
from unmeasured import UNMEASURED

ROOT = Path(__file__).parent.parent
WORDS = (
    *("data=folder", "data.root=images", "model=timm", "model.architecture=test_byobnet", "model.weights=null"),
    *("device=cpu", "method=grad_cam", "resolution=7", "protocol.n_steps=2"),
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of one image."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.radial_gradient("L").save(folder / "one.png")
    return folder


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("part", ["d" * 300, "/".join(["d" * 200] * 25)], ids=["name", "path"])
def test_a_results_folder_that_is_too_deep_is_one_line(tmp_path: Path, igos_bench: Command, part: str) -> None:
    ended = igos_bench(*WORDS, f"results_dir={part}")
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 4 and line.startswith("igos-bench: cannot write ddd"), line
    assert "File name too long" in line and "set results_dir=FOLDER" in line and len(line) < 2100


NO_THREADS = """
import resource, sys, threading
from igos_bench import cli
import igos_bench.prepare, igos_bench.runner

threading.stack_size(2**40)  # more than the limit below: no thread begins
resource.setrlimit(resource.RLIMIT_AS, (2**38, -1))
sys.argv = ["igos-bench", "check-data", "data=folder", "data.root=images"]
sys.exit(cli.main())
"""


@pytest.mark.usefixtures("images")
def test_threads_that_cannot_be_started_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NO_THREADS]
    ended = subprocess.run(
        command, cwd=tmp_path, env={**UNMEASURED, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 2 and "can't start new thread" in line and "data.workers=1" in line, line


LARGE = """
import resource, sys
from pathlib import Path
from igos_bench.config import Preprocessing
from igos_bench.source import ImageSource
from igos_bench.images import read_image, stream
from functools import partial

def read():
    sources = [ImageSource(name, None, Path(sys.argv[1]) / name) for name in ("large.png", "one.png")]
    read_one = partial(read_image, preprocessing=Preprocessing.plain, max_pixels=10**8)
    return [image for _, image in stream(sources, read_one, workers=2, ahead=1)]

small = read()[1]
assert small.shape == (3, 224, 224)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20, -1))
found, again = read()
print(type(found).__name__, found)
assert (again == small).all()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit of a process's memory is Linux's")
@pytest.mark.parametrize("megabytes", [100, 500])  # 48 of grey pixels, 144 of RGB, 576 in float32
def test_an_image_that_memory_has_no_room_for_costs_itself_alone(images: Path, megabytes: int) -> None:
    Image.new("L", (8000, 6000), 128).save(images / "large.png")
    ended = subprocess.run(
        [sys.executable, "-c", LARGE, str(images), str(megabytes)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()
    assert line.startswith("ImageError cannot be ") and "emory" in line, line


@pytest.mark.usefixtures("images")
def test_a_full_folder_for_temporary_files_is_not_needed(tmp_path: Path, disk: Path) -> None:  # noqa: F811
    room = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(room.f_bavail * room.f_frsize))
    command = [sys.executable, "-m", "igos_bench", "-m", *WORDS, "seed=0,1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(disk)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert [path.name for path in disk.iterdir()] == ["ballast"]
    assert len(list(tmp_path.glob("results/runs/*/*/*/*/*/run.json"))) == 2


@pytest.mark.usefixtures("images")
def test_where_no_folder_can_be_written_a_sweep_says_so(tmp_path: Path) -> None:
    """All is read-only, for this process alone."""
    words = [sys.executable, "-m", "igos_bench", "-m", *WORDS, "seed=0,1"]
    command = ["unshare", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh", *words]
    # Coverage, where it is measured, could not write either, and would say so.
    environment = UNMEASURED | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(tmp_path))
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 4, f"these tests change how a file system is mounted, as root alone may: {line}"
    assert line.startswith("igos-bench: no folder for temporary files can be made (") and "set TMPDIR" in line


@pytest.mark.usefixtures("images")
def test_the_folder_of_another_run_is_left_untouched(tmp_path: Path, igos_bench: Command) -> None:
    assert igos_bench(*WORDS).returncode == 0
    (path,) = tmp_path.glob("results/runs/*/*/*/*/*/run.json")
    made = json.loads(path.read_text())
    path.write_text(json.dumps({**made, "map_key": "0123456789ab"}))
    before = state(tmp_path / "results")
    for command in ("run", "score"):
        ended = igos_bench(command, *WORDS)
        (line,) = ended.stderr.splitlines()
        assert (
            ended.returncode == 2 and f"says map_key=0123456789ab, this run has {made['map_key']}: the folder" in line
        )
        assert "it is left untouched, set another results_dir" in line
        assert state(tmp_path / "results") == before
