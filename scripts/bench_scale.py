"""What the harness itself costs, and whether it stays so: Grad-CAM of a tiny network on 50, 500 and 5,000 images.

    python scripts/bench_scale.py [images=[50,500,5000]] [out=results]

JPEGs of about 400 x 300 are written once; then the runner explains and scores them as `igos-bench` does, each size in a
process of its own, after a warm-up of a few images there: no size's peak is another's. The protocol has one step
instead of 200: what grows with passes, making their inputs among it, is for `bench.py` to judge.

seconds     wall time an image, start to end of the run
network     of these inside the network: forward passes, and the backward ones
outside     everything else, which is
  waiting   for images to be read; `reading` is the threads' own time, beside the rest: decoding, resizing, blurring
  harness   what is left: ranking, perturbing, rows, files
seconds_read, network_read, outside_read
            the same where images have been read, a few of them again and again: what reads takes cores away from all
            that goes on beside it, so that this is what the harness costs by itself
peak        memory of that process, from its start

Bars: what is outside below 3 ms an image, as much at 5,000 images as at 50; memory flat within 5 %.
OUT/bench_scale.csv has it.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from bench_report import tell_and_write
from options import read_options
from PIL import Image

from igos_bench.clock import peak_memory_mb
from igos_bench.errors import UserError
from igos_bench.network import Normalised
from igos_bench.overrides import compose_config
from igos_bench.prepare import Run, prepare
from igos_bench.runner import execute

ROOT = Path(__file__).resolve().parent.parent
WORDS = [
    *("model=timm", "model.architecture=test_byobnet", "model.weights=null", "data=folder"),
    *("method=grad_cam", "resolution=7", "protocol.n_steps=1"),
]
WARM_UP = 20  # images of a run before the one that counts: first calls take longer
READ = 20  # images that are there again and again where none is to be read


@dataclass
class Options:
    """How many images, and where the table goes."""

    images: list[int] = field(default_factory=lambda: [50, 500, 5000])
    out: str = str(ROOT / "results")


def main() -> int:
    """Measure each size, then write and print the table."""
    try:
        options = read_options(Options)
        with TemporaryDirectory() as folder:
            root = Path(folder, "images")
            write_images(root, max(options.images))
            rows = [measure_alone(root, Path(folder, str(count)), count) for count in sorted(options.images)]
    except UserError as error:
        print(f"bench_scale: {error}", file=sys.stderr)
        return 2
    tell_and_write(rows, Path(options.out) / "bench_scale.csv")
    return 0


def write_images(root: Path, count: int) -> None:
    """Photograph-like JPEGs: smooth noise with a fine grain, each of its own size."""
    root.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        width, height = (int(side) for side in random.integers((360, 270), (440, 330)))
        coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        grain = random.integers(-8, 9, (height, width, 1), dtype=np.int16)
        Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(root / f"{i:05d}.jpg", quality=90)


def measure_alone(root: Path, results: Path, count: int) -> dict[str, Any]:
    """`measure` in a new process, after a warm-up there, and then once more with images that have been read."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        process.submit(measure, root, results / "warm-up", min(WARM_UP, count)).result()
        row = process.submit(measure, root, results / "run", count).result()
        again = process.submit(measure, root, results / "read", count, read=True).result()
        return row | {f"{part}_read_ms": again[f"{part}_ms"] for part in ("seconds", "network", "outside")}


def measure(root: Path, results: Path, count: int, *, read: bool = False) -> dict[str, Any]:
    """One run of so many images, which with `read` have been read before; milliseconds an image."""
    words = [f"data.root={root}", f"data.limit={count}", f"results_dir={results}"]
    run = prepare(compose_config([*WORDS, *words]))
    with read_before(run) if read else nullcontext(), stopwatches() as spent:
        started = time.perf_counter()
        outcome = execute(run, lambda _count, _rows: None)
        seconds = time.perf_counter() - started
    done = sum(row["status"] == "ok" for row in outcome.rows)
    if done != count:
        raise UserError(f"{count - done} of {count} images failed: see {outcome.records}")
    waiting = pd.read_csv(outcome.directory / "timing.csv")["decode_seconds"].sum()
    network = spent["network"]
    parts = {
        "seconds": seconds,
        "network": network,
        "outside": seconds - network,
        "waiting": waiting,
        "harness": seconds - network - waiting,
        "reading": spent["reading"],
    }
    row: dict[str, Any] = {"images": count}
    row |= {f"{name}_ms": 1000 * part / count for name, part in parts.items()}
    return {**row, "peak_mb": peak_memory_mb(run.device)}


@contextmanager
def read_before(run: Run) -> Iterator[None]:
    """Have a few images in the place of all."""
    again = cycle([run.read(source) for source in run.manifest.take(READ)])
    with patch.object(Run, "read", lambda *_: next(again)):
        yield


@contextmanager
def stopwatches() -> Iterator[dict[str, float]]:
    """Time what goes into the network, both ways, and into reading in the threads."""
    spent: dict[str, float] = defaultdict(float)
    places: list[tuple[Any, str, str]] = [
        (Normalised, "forward", "network"),
        (torch.autograd, "grad", "network"),
        (Run, "read", "reading"),
    ]
    with ExitStack() as stack:
        for owner, name, part in places:
            stack.enter_context(patch.object(owner, name, _timed(vars(owner)[name], spent, part)))
        yield spent


def _timed(call: Callable[..., Any], spent: dict[str, float], part: str) -> Callable[..., Any]:
    lock = threading.Lock()

    def timed(*args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*args, **options)
        finally:
            with lock:
                spent[part] += time.perf_counter() - started

    return timed


if __name__ == "__main__":
    sys.exit(main())
