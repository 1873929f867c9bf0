"""What millions of rows cost: `table`, `status`, starting a finished run again, and how many files there are.

    python scripts/simulate_scale.py [rows=[1000,...]] [cells=15] [rows_of_all=1280000] [out=results] [folder=/tmp]

Cells are written as runs leave them, by the functions that write for runs, in chunks of ten; only nothing is computed.
Maps are of 2 x 2 and curves of three points, and in archives those of the first chunk stand for all: what is measured
reads the directories of these archives alone.
First one cell of so many rows after the other, then that many cells of `rows_of_all` each, copies of one but for their
names, without maps and curves, which `table` and `status` do not look at.

table, status   seconds, those of the processor among them, and the most memory of `igos-bench table` and `status`, each
                in a process of its own
resume          likewise of a run that finds all its images done, from start to end; of that
scan            from the loaded network on: finding that all is done, and making records.csv anew. The list of images is
                made up, as no such folder is here: what listing and ordering one takes comes on top
files           of a cell, records.csv and all

Limits, on two cores: `table` of 19.2 million rows below 180 s and 4,000 MB, `status` of them below 20 s, a scan of
1.28 million below 10 s, and fewer than 200 files for 50,000 images. OUT/scale.csv has it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from bench_report import tell_and_write
from options import read_options

from igos_bench.atomic import write_atomically
from igos_bench.config import DataConfig
from igos_bench.console import Progress, print_summary
from igos_bench.data import ImageSource, Manifest
from igos_bench.errors import UserError
from igos_bench.formats import COLUMNS, TIMING_COLUMNS, Row, csv_bytes, npz
from igos_bench.overrides import compose_config
from igos_bench.packs import ChunkFiles, File, range_of
from igos_bench.prepare import Run, prepare
from igos_bench.provenance import describe
from igos_bench.results import RunDirectory
from igos_bench.runner import execute
from igos_bench.table import paper_table

ROOT = Path(__file__).resolve().parent.parent
CHUNK = 10
WORDS = [
    *("model=timm", "model.architecture=test_byobnet", "model.weights=null", "data=folder", "data.root=none"),
    *("method=grad_cam", "resolution=7", "protocol.n_steps=2", f"chunk_size={CHUNK}", "device=cpu"),
]

# What a process has used at most is at least what the one that started it had, so that a small one has to.
LAUNCHER = """
import resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.call(sys.argv[1:])
seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
print(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(code)
"""


@dataclass
class Options:
    """How many rows, and where the table goes; `again` is how the script calls itself."""

    rows: list[int] = field(default_factory=lambda: [1_000, 10_000, 50_000, 100_000, 1_280_000])
    cells: int = 15
    rows_of_all: int = 1_280_000
    out: str = str(ROOT / "results")
    folder: str | None = None
    again: str | None = None


def main() -> int:
    """Measure each size, then all cells, then write and print the table."""
    try:
        options = read_options(Options)
        if options.again:
            return run_again(Path(options.again), options.rows[0])
        measured = [measure_one(options.folder, count) for count in options.rows]
        if options.cells:
            measured.append(measure_all(options.folder, options.cells, options.rows_of_all))
    except UserError as error:
        print(f"simulate_scale: {error}", file=sys.stderr)
        return 2
    tell_and_write(measured, Path(options.out) / "scale.csv")
    return 0


def measure_one(folder: str | None, count: int) -> dict[str, Any]:
    """One cell of so many rows."""
    with TemporaryDirectory(dir=folder) as results:
        run = made_up_run(Path(results), count)
        write_cell(run, count)
        script = [sys.executable, __file__, f"again={results}", f"rows=[{count}]"]
        resume, said = measured_process("resume", script)
        files = sum(path.is_file() for path in run.directory.path.rglob("*"))
        return {
            **{"cells": 1, "rows": count, "files": files},
            **measure_reading(Path(results)),
            **resume,
            **dict(zip(("scan_seconds", "scan_cpu_seconds"), map(float, said.split()[-2:]), strict=True)),
        }


def measure_all(folder: str | None, cells: int, count: int) -> dict[str, Any]:
    """So many cells, of so many rows each."""
    with TemporaryDirectory(dir=folder) as results:
        run = made_up_run(Path(results), count)
        write_cell(run, count, arrays=False)
        whole = run.directory
        described = whole.read_provenance() or {}
        for method, resolution in list(paper_table())[:cells]:
            copy = RunDirectory(whole.path.parents[2] / method / str(resolution) / "0", whole.protocol_path.name)
            shutil.copytree(whole.path, copy.path)
            copy.write_provenance({**described, "method": method, "resolution": resolution})
        shutil.rmtree(whole.path)
        return {"cells": cells, "rows": cells * count, **measure_reading(Path(results))}


def measure_reading(results: Path) -> dict[str, Any]:
    """`table` and `status` of a folder."""
    row: dict[str, Any] = {}
    for command in ("table", "status"):
        words = [sys.executable, "-m", "igos_bench", command, f"results_dir={results}"]
        row |= measured_process(command, words)[0]
    return row


def measured_process(name: str, words: Sequence[str]) -> tuple[dict[str, float], str]:
    """Columns of this name, and what the process said; raises UserError where it failed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    launched = [sys.executable, "-I", "-c", LAUNCHER, *words]
    ended = subprocess.run(launched, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise UserError(f"{' '.join(words)} ended with {ended.returncode}: {ended.stdout}")
    *said, last = ended.stdout.splitlines()
    seconds, processor, kilobytes = map(float, last.split())
    measured = {"seconds": seconds, "cpu_seconds": processor, "mb": kilobytes / 1024}
    return {f"{name}_{key}": value for key, value in measured.items()}, "\n".join(said)


def run_again(results: Path, count: int) -> int:
    """Start a finished run, and say how long it took to find that out."""
    run = made_up_run(results, count)
    progress = Progress()
    started, used = time.perf_counter(), time.process_time()
    outcome = execute(run, progress, expect=progress.expect)
    print_summary(outcome, run.shard)
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    if outcome.resumed != count or len(outcome.rows) != count:
        raise UserError(f"{outcome.resumed} of {count} images were found done")
    print(seconds, processor)
    return 0


def made_up_run(results: Path, count: int) -> Run:
    """A run on images that are nowhere."""

    def read(_config: DataConfig) -> Manifest:
        images = tuple(ImageSource(image_id(i), i % 1000, Path("nowhere")) for i in range(count))
        return Manifest("folder", images, "0" * 64, "made up", None)

    return prepare(compose_config([*WORDS, f"results_dir={results}"]), read)


def image_id(i: int) -> str:
    """As ImageNet's training images are called."""
    return f"n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG"


def write_cell(run: Run, count: int, *, arrays: bool = True) -> None:
    """Write so many rows, and with `arrays` maps and curves, as a run leaves them."""
    directory = run.directory
    directory.write_provenance(describe(run))
    directory.write_listing(run.manifest.listing(None))
    directory.write_protocol({"name": run.protocol.name})
    kinds: list[tuple[ChunkFiles, Callable[[int, int], bytes]]] = [
        (directory.timing, timing),
        (directory.records, rows),
    ]
    if arrays:
        kinds += [(directory.maps, maps), (directory.curves, curves)]
    chunks = -(-count // CHUNK)
    for files, content in kinds:
        if chunks < len(range_of(0)):
            for chunk in range(chunks):
                write_atomically(files.loose(chunk), content(chunk, count), flush=False)
        else:
            for first in range(0, chunks, len(range_of(0))):
                there = [chunk for chunk in range_of(first) if chunk < chunks]
                own = files in (directory.timing, directory.records)
                sources = {chunk: partial(File, content(chunk if own else 0, count), (chunk, 0)) for chunk in there}
                write_atomically(files.archive(first), files.together(sources), flush=False)


def rows(chunk: int, count: int) -> bytes:
    """Those of a chunk, with numbers as long as real ones."""
    random = np.random.default_rng(chunk)
    found: list[Row] = []
    for i in images_of(chunk, count):
        numbers = dict(zip(COLUMNS[3:12], random.random(9).tolist(), strict=True))
        row = {"image_id": image_id(i), "label": i % 1000, "target": i % 1000, **numbers, "status": "ok", "error": ""}
        found.append(row | {"forwards": 5840.0, "backwards": 400.0})
    return csv_bytes(found)


def timing(chunk: int, count: int) -> bytes:
    """A line."""
    return csv_bytes(
        [dict.fromkeys(TIMING_COLUMNS, 1 / 3) | {"chunk": chunk, "images": count, "notes": ""}], TIMING_COLUMNS
    )


@lru_cache(maxsize=1)
def maps(chunk: int, count: int) -> bytes:
    """2 x 2 each."""
    names = np.array(list(map(image_id, images_of(chunk, count))))
    return npz({"image_id": names, "saliency_map": np.ones((len(names), 1, 2, 2), np.float32)})


@lru_cache(maxsize=1)
def curves(chunk: int, count: int) -> bytes:
    """Three points each."""
    names = np.array(list(map(image_id, images_of(chunk, count))))
    points = np.ones((len(names), 3), np.float32)
    return npz({"image_id": names, "hits": np.arange(3), "deletion": points, "insertion": points})


def images_of(chunk: int, count: int) -> Iterator[int]:
    """Numbers of a chunk's images."""
    yield from range(chunk * CHUNK, min((chunk + 1) * CHUNK, count))


if __name__ == "__main__":
    sys.exit(main())
