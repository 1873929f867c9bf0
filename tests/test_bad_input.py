"""Bad input through the command line: one clear line that says what to do, nothing already computed lost.

What tests/test_cli.py and tests/test_data.py have is not repeated. Every run here is a process of its own, forked from
one that has torch loaded already: start-up takes a second instead of six.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igos_bench.results import RunDirectory

QUICK = ("method.iterations=1", "method.path_steps=1", "protocol.n_steps=2", "data.limit=2", "chunk_size=1")
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["igos_bench.cli", "igos_bench.runner", "igos_bench.table", "hydra", "numpy"])


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str

    def is_one_line(self, *parts: str, code: int = 2) -> None:
        """This exit code and one line on stderr with these parts in it."""
        assert self.code == code, (self.code, self.errors)
        assert len(self.errors.splitlines()) == 1, self.errors
        assert self.errors.startswith("igos-bench: ")
        for part in parts:
            assert part in self.errors


def _main(folder: str, words: tuple[str, ...]) -> None:
    os.chdir(folder)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = ["igos-bench", *words]
    runpy.run_module("igos_bench", run_name="__main__")


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Ended]:
    """Runs `python -m igos_bench` in a folder of its own."""

    def run(*words: str) -> Ended:
        process = PROCESSES.Process(target=_main, args=(str(tmp_path), words))
        process.start()
        process.join(timeout=120)
        assert process.exitcode is not None, "not done in two minutes"
        ended = Ended(process.exitcode, *((tmp_path / name).read_text() for name in ("stdout", "stderr")))
        assert "Traceback" not in ended.errors and "Error executing job" not in ended.errors, ended.errors
        return ended

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a run of two images in it, each a chunk; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    process = PROCESSES.Process(target=_main, args=(str(folder), (*QUICK, "results_dir=out")))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == 0, (folder / "stderr").read_text()
    return folder / "out"


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def one(results: Path, pattern: str) -> Path:
    (path,) = (path for path in results.glob(f"runs/**/{pattern}") if not path.name.startswith("."))
    return path


def contents(results: Path) -> dict[str, object]:
    """Maps, curves and rows, the rows without the times that equal runs differ in."""
    found: dict[str, object] = {str(path.relative_to(results)): path.read_bytes() for path in results.rglob("*.npz")}
    for path in [*results.rglob("records/*.csv"), *results.rglob("records.csv")]:
        rows = csv.DictReader(path.read_text().splitlines())
        found[str(path.relative_to(results))] = [{k: row[k] for k in row if not k.endswith("_seconds")} for row in rows]
    return found


def state(results: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in results.rglob("*") if path.is_file()}


def cut(path: Path, keep: float = 0.5) -> None:
    """What is left of a file that was not written to its end."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


# Images


def test_empty_folder(command: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    command("data=folder", "data.root=empty").is_one_line("data.root=empty holds no images", "found no files at all")


def test_damaged_images_are_rows_with_a_reason(command: Callable[..., Ended], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    for name in ("good.png", "cut.jpg", "cut.png"):
        Image.fromarray(noise).save(folder / name)
    cut(folder / "cut.jpg")
    cut(folder / "cut.png")
    (folder / "empty.png").write_bytes(b"")
    words = (*QUICK, "chunk_size=4", "data=folder", "data.root=images", "data.limit=null", "results_dir=out")
    ended = command(*words)
    assert ended.code == 3, ended.errors
    assert "3 of 4 images failed; the same command tries them again" in ended.errors
    for reason in ("cut.jpg: truncated", "cut.png: truncated", "empty.png: not an image"):
        assert f"failed    {reason}" in ended.errors
    rows = one(tmp_path / "out", "records.csv").read_text().splitlines()[1:]
    status = {row.split(",")[0]: ",ok," in row for row in rows}
    assert status == {"good.png": True, "cut.jpg": False, "cut.png": False, "empty.png": False}

    Image.fromarray(noise).save(folder / "cut.jpg")  # to another size: other data
    command("score", *words, "protocol.n_steps=3").is_one_line("1 of 1 chunks have no stored maps")


def test_score_is_not_stopped_by_an_image_that_failed(command: Callable[..., Ended], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    for name in ("good.png", "other.png"):
        Image.fromarray(noise).save(folder / name)
    whole = (folder / "other.png").read_bytes()
    (folder / "other.png").write_bytes(bytes(len(whole)))
    words = (*QUICK, "chunk_size=2", "data=folder", "data.root=images", "data.limit=null", "results_dir=out")
    assert command(*words).code == 3
    scored = command("score", *words, "protocol.n_steps=3")
    assert scored.code == 3 and "1 of 2 images failed" in scored.errors
    assert "failed    other.png: not an image" in scored.errors
    (folder / "other.png").write_bytes(whole)
    scored = command("score", *words, "protocol.n_steps=3")
    assert scored.code == 3
    assert "failed    other.png: has no stored map: explaining it failed" in scored.errors
    assert command(*words).code == 0, "run tries it again"
    assert command("score", *words, "protocol.n_steps=3").code == 0


# Results folders that cannot be written


@pytest.mark.parametrize("results_dir", ["file/out", "file", "/proc/out"])
def test_unwritable_results_folder(command: Callable[..., Ended], tmp_path: Path, results_dir: str) -> None:
    (tmp_path / "file").write_text("precious")
    ended = command(*QUICK, f"results_dir={results_dir}")
    advice = "set results_dir=FOLDER, and start the same command again"
    ended.is_one_line(f"cannot write {results_dir}/runs/", advice, code=4)
    assert "images:" not in ended.output, "it must not compute first and find out later"
    assert (tmp_path / "file").read_text() == "precious"


@pytest.fixture
def frozen(results: Path) -> Iterator[Path]:
    """The finished run in folders in which not even root may make or change anything."""
    if not shutil.which("chattr") or subprocess.run(["chattr", "-R", "+i", results], capture_output=True).returncode:
        subprocess.run(["chattr", "-R", "-i", results], capture_output=True)
        pytest.fail("needs chattr, root and a file system that knows immutable files")
    yield results
    subprocess.run(["chattr", "-R", "-i", results], check=True)


def test_results_folder_that_became_read_only(command: Callable[..., Ended], frozen: Path) -> None:
    before = state(frozen)
    for words in (("data.limit=2",), ("data.limit=3",)):  # nothing left to compute, and one image more
        ended = command(*QUICK, *words, "results_dir=out")
        ended.is_one_line("cannot write out/runs/", "allow yourself to write there or set results_dir=FOLDER", code=4)
    command("table", "results_dir=out").is_one_line("cannot write out/table.csv", code=4)
    assert state(frozen) == before


# Weights


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_corrupt_weights(command: Callable[..., Ended], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 half of a download")
    command(*QUICK, f"model.weights={name}").is_one_line(f"{name} cannot be read as weights", "fetch it again")


# Damaged results


@pytest.mark.parametrize(
    ("what", "keep"), [("maps/000001.npz", 0.5), ("curves/000001.npz", 0.9), ("records/000001.csv", 0.5)]
)
def test_torn_chunk_is_computed_again(
    command: Callable[..., Ended], results: Path, finished: Path, what: str, keep: float
) -> None:
    cut(one(results, what), keep)
    cut(one(results, "records.csv"), keep)
    untouched = {path: value for path, value in state(results).items() if "000000" in path.name}
    ended = command(*QUICK, "results_dir=out")
    assert ended.code == 0, ended.errors
    assert "resumed 1/2" in ended.output
    assert re.fullmatch(
        f"igos-bench: out/runs/.*{what} is missing or damaged: chunk 1 is computed again\n", ended.errors
    )
    assert contents(results) == contents(finished)
    assert untouched.items() <= state(results).items(), "what was whole must not be touched"


def test_score_of_torn_maps_says_what_to_do_and_that_helps(
    command: Callable[..., Ended], results: Path, finished: Path
) -> None:
    cut(one(results, "maps/000000.npz"))
    ended = command("score", *QUICK, "results_dir=out", "protocol.n_steps=3")
    ended.is_one_line("1 of 2 chunks have no stored maps", "make them first with the same words after `igos-bench run`")
    assert command("run", *QUICK, "results_dir=out").code == 0
    assert contents(results) == contents(finished)
    assert command("score", *QUICK, "results_dir=out", "protocol.n_steps=3").code == 0


def test_torn_rows_stop_the_table_until_they_are_made_anew(command: Callable[..., Ended], results: Path) -> None:
    rows, records = one(results, "records/000001.csv"), one(results, "records.csv")
    whole, all_rows = rows.read_bytes(), records.read_bytes()
    for keep in (0.0, 0.2, 0.999):
        cut(rows, keep)
        command("table", "results_dir=out").is_one_line("000001.csv is damaged", "start its run again", "and no other")
        rows.write_bytes(whole)
    cut(records)
    assert command("table", "results_dir=out").code == 0, "made of the chunks' rows"
    cut(rows)
    assert command(*QUICK, "results_dir=out").code == 0
    assert command("table", "results_dir=out").code == 0
    areas = {line.split(",")[0]: line.split(",")[5:7] for line in all_rows.decode().splitlines()}
    assert {line.split(",")[0]: line.split(",")[5:7] for line in records.read_text().splitlines()} == areas


@pytest.mark.parametrize("content", [b"", b'{"map_key": "8c5', b"[]", b"\xff\xfe"])
def test_torn_provenance(command: Callable[..., Ended], results: Path, content: bytes) -> None:
    one(results, "run.json").write_bytes(content)
    before = state(results)
    for words in ((*QUICK, "results_dir=out"), ("table", "results_dir=out")):
        command(*words).is_one_line("run.json cannot be read", "The maps and rows beside it are untouched: restore")
    assert state(results) == before


def test_every_cut_and_most_flips_are_noticed(results: Path) -> None:
    directory = RunDirectory(one(results, "run.json").parent, one(results, "records.csv").parent.name)
    expected = directory.read_maps(0)
    assert expected is not None
    assert len(directory.read_rows(0)) == 1
    for what in ("maps/000000.npz", "curves/000000.npz", "records/000000.csv"):
        path = one(results, what)
        whole = path.read_bytes()
        for length in {*range(0, len(whole), 20), *range(len(whole) - 20, len(whole))}:
            path.write_bytes(whole[:length])
            with pytest.warns(UserWarning, match=f"{what} is missing or damaged: chunk 0 is computed again"):
                assert directory.read_rows(0) == []
            assert what[0] != "m" or directory.read_maps(0) is None
        path.unlink()
        if what[0] == "r":
            assert directory.read_rows(0) == []  # never done: no warning
        path.write_bytes(whole)

    path = one(results, "maps/000000.npz")
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        found = directory.read_maps(0) or {}
        for key in found.keys() & expected.keys():  # a name can be flipped too
            assert np.array_equal(found[key], expected[key]), position


def test_results_of_other_settings_are_left_alone(command: Callable[..., Ended], results: Path) -> None:
    before = state(results)
    for words in (("seed=1",), ("method.path_steps=2",)):
        ended = command(*QUICK, "data.limit=1", *words, "results_dir=out")
        assert ended.code == 0, ended.errors
        assert "resumed" not in ended.output
    assert before.items() <= state(results).items()
    assert len(list(results.glob("runs/*/*/*/*/*/run.json"))) == 3
