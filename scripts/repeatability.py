"""Whether the same run gives the same numbers, and how far they move where it may round otherwise.

    python scripts/repeatability.py [limit=N] [methods=[...]] [resolutions=[...]] [out=results/repeatability.csv]

Makes the runs of `igos-bench -m method=... resolution=...` once more in a folder of their own for every change:

    again                   nothing is changed
    workers      4          threads that decode images, 2 in the reference
    resumed                 the first image, then all
    shards                  shard 2/3, then 1/2 and 2/2
    threads      1          of the network, 2 in the reference
    batch_size   1, 7, 16   inputs in a micro-batch, 32 in the reference

The first four have to give the same rows, seconds apart, and the same bytes of maps and curves; the others the same
images and targets, areas of every image within 1e-3, and for I-GOS and Mask, which amplify rounding, means within
0.005.

Other words: `changes=[...]` for some of them, `batch_size-7` for one of several; `threads=2` of the reference;
`work=results/repeatability`, where the runs are (started again, the script computes only what is missing); anything
else is handed to igos-bench, `model=` or `data=` for instance. OUT gets a row a change and cell, in the place of that
of the same cell. Exit code 1: a bound is broken.

All at full settings takes many hours on two cores. results/repeatability.csv is of three commands, see their rows:

    methods=[igos,mask] resolutions=[28] changes=[threads,batch_size-7] protocol.n_steps=50
    methods=[excitation_bp,grad_cam,integrated_gradients] limit=5 protocol.n_steps=50
    methods=[rise] limit=5 protocol.n_steps=50 method.masks=500
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_report import machine
from options import read_options

from igos_bench.errors import UserError, unknown
from igos_bench.formats import COLUMNS, Row, read_csv
from igos_bench.overrides import CONF
from igos_bench.results import RunDirectory
from igos_bench.table import write_csv

METHODS = sorted(path.stem for path in Path(CONF, "method").glob("*.yaml"))
ITERATIVE = ("igos", "mask")
LARGEST_SHIFT = 1e-3  # of an image's area
LARGEST_SHIFT_OF_A_MEAN = 0.005  # of the iterative methods
SAME = ("image_id", "label", "target", "status", "error")
KEY = ["model", "data", "method", "resolution", "changed", "value"]


@dataclass(frozen=True)
class Change:
    """What one folder of runs has of its own.

    Attributes:
        value: What `changed` is set to.
        words: For igos-bench, of every start.
        threads: Of the network; None: those of the reference.
        starts: What each start says besides, one after another; all but the last leave the run unfinished.
        exact: Whether rows, maps and curves have to be the same.
    """

    changed: str
    value: str = ""
    words: tuple[str, ...] = ()
    threads: int | None = None
    starts: tuple[tuple[str, ...], ...] = ((),)
    exact: bool = False

    @property
    def folder(self) -> str:
        """Its name."""
        return f"{self.changed}{self.value and '-'}{self.value}"


REFERENCE = Change("reference")
CHANGES = (
    Change("again", exact=True),
    Change("workers", "4", ("data.workers=4",), exact=True),
    Change("resumed", starts=(("data.limit=1",), ()), exact=True),
    Change("shards", starts=(("shard=2/3",), ("shard=1/2",), ("shard=2/2",)), exact=True),
    Change("threads", "1", threads=1),
    *(Change("batch_size", str(size), (f"evaluate.batch_size={size}",)) for size in (1, 7, 16)),
)


@dataclass
class Options:
    """The script's own words."""

    limit: int | None = None
    methods: list[str] = field(default_factory=lambda: list(METHODS))
    resolutions: list[int] = field(default_factory=lambda: [224, 112, 28, 14])
    changes: list[str] = field(default_factory=lambda: list(dict.fromkeys(change.changed for change in CHANGES)))
    threads: int = 2
    out: str = "results/repeatability.csv"
    work: str = "results/repeatability"


def main(words: Sequence[str]) -> int:
    """Run the reference and every change, and compare."""
    try:
        options, others = divide(words)
        run(REFERENCE, options, others)
        broken = 0
        for change in CHANGES:
            if {change.changed, change.folder} & set(options.changes):
                run(change, options, others)
                broken += judge(change, options)
    except UserError as error:
        print(f"repeatability: {error}", file=sys.stderr)
        return 2
    print(f"written to {options.out}; {broken} comparisons beyond the bounds")
    return 1 if broken else 0


def judge(change: Change, options: Options) -> int:
    """Compare a change with the reference, write and print it; return how many cells are beyond the bounds."""
    rows = list(compare(change, options))
    merge(Path(options.out), pd.DataFrame(rows))
    broken = [row for row in rows if not within(change, row)]
    for row in rows:
        print(f"{'beyond the bounds: ' * (row in broken)}{said(row)}", flush=True)
    return len(broken)


def divide(words: Sequence[str]) -> tuple[Options, list[str]]:
    """The script's words and those of igos-bench; raises UserError."""
    own = [word for word in words if word.partition("=")[0] in asdict(Options())]
    options = read_options(Options, own)
    known = [*Options().changes, *(change.folder for change in CHANGES if change.value)]
    if strange := [changed for changed in options.changes if changed not in known]:
        raise UserError(unknown("change", strange[0], known))
    return options, [word for word in words if word not in own]


def run(change: Change, options: Options, others: Sequence[str]) -> None:
    """Make what is missing of these runs, as a user does; raises UserError where igos-bench ends otherwise."""
    threads = str(change.threads or options.threads)
    folder = Path(options.work, change.folder)
    cells = [f"method={','.join(options.methods)}", f"resolution={','.join(map(str, options.resolutions))}"]
    limit = [f"data.limit={options.limit}"] if options.limit else []
    words = [*cells, *others, *change.words, f"results_dir={folder}"]
    for own in change.starts:
        # Of a key that is said twice the last word holds.
        command = [sys.executable, "-m", "igos_bench", "-m", *words, *limit, *own]
        print(f"OMP_NUM_THREADS={threads} igos-bench {' '.join(command[3:])}", flush=True)
        ended = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": threads}, check=False).returncode
        if ended not in (0, 3):  # 3: some images failed, and have to fail in all runs
            raise UserError(f"igos-bench ended with {ended}: its message stands above")


def compare(change: Change, options: Options) -> Iterator[dict[str, Any]]:
    """A row a cell; raises UserError where a run is not there, over other images, or made in another way than said."""
    root = Path(options.work, REFERENCE.folder)
    for directory in runs_of(root, options):
        path = directory.path.relative_to(root)
        other = RunDirectory(Path(options.work, change.folder, path), directory.protocol_path.name)
        made = check_made(directory, other, change.threads or options.threads, options.threads)
        expected, found = committed(directory), committed(other)
        if [row["image_id"] for row in found] != [row["image_id"] for row in expected]:
            raise UserError(
                f"{other.protocol_path} has {len(found)} images and the reference {len(expected)}, or others: give the "
                "same limit as before, or another folder, work=FOLDER"
            )
        model, data, method, resolution = path.parts[1:5]
        row = {"model": model, "data": data, "method": method, "resolution": int(resolution)}
        pairs = list(zip(found, expected, strict=True))
        good = [pair for pair in pairs if {one["status"] for one in pair} == {"ok"}]
        row |= {"changed": change.changed, "value": change.value, "n": len(good)}
        for kind in ("deletion", "insertion"):
            shifts = np.array([float(a[f"{kind}_auc"]) - float(b[f"{kind}_auc"]) for a, b in good])
            row[f"{kind}_largest"] = float(np.abs(shifts).max(initial=0))
            row[f"{kind}_mean"] = float(abs(shifts.mean())) if good else 0.0
        row["same_targets"] = float(np.mean([all(a[key] == b[key] for key in SAME) for a, b in pairs]))
        row["same_rows"] = float(np.mean([timeless(a) == timeless(b) for a, b in pairs]))
        row["same_bytes"] = arrays(directory) == arrays(other)
        git = made["git"] or {"commit": "", "dirty": False}
        reference = {"threads": made["threads"], "batch_size": made["batch_size"]}
        yield {**row, **machine(), **reference, "commit": git["commit"][:12] + "-dirty" * git["dirty"]}


def check_made(reference: RunDirectory, other: RunDirectory, threads: int, usual: int) -> dict[str, Any]:
    """The reference's run.json; raises UserError where the other differs from it in more than what is compared."""
    made, again = reference.read_provenance(), other.read_provenance()
    if made is None or again is None:
        raise UserError(f"{other.path} is not there: start the same command again")
    differing = [key for key in ("git", "versions", "machine", "processor", "device") if made[key] != again[key]]
    if (made["threads"], again["threads"]) != (usual, threads):
        differing.append("threads")
    if differing:
        raise UserError(
            f"{other.path} was made with other {', '.join(differing)} than it is compared for; move {other.path} and "
            f"{reference.path} away and start the same command again"
        )
    return made


def runs_of(root: Path, options: Options) -> Iterator[RunDirectory]:
    """The finished cells that the words name."""
    for path in sorted(root.glob("runs/*/*/*/*/*/*/records.csv")):
        method, resolution = path.parts[-5:-3]
        if method in options.methods and int(resolution) in options.resolutions:
            yield RunDirectory(path.parent.parent, path.parent.name)


def committed(directory: RunDirectory) -> list[Row]:
    """The rows of a run, in the manifest's order."""
    return read_csv(directory.protocol_path / "records.csv") or []


def arrays(directory: RunDirectory) -> dict[str, bytes]:
    """The maps and curves of a run's chunks, as files."""
    kinds = {"maps": directory.maps, "curves": directory.curves}
    return {f"{kind}/{chunk}": files.read(chunk) or b"" for kind, files in kinds.items() for chunk in files.chunks()}


def timeless(row: Row) -> list[str]:
    """A row without its seconds."""
    return [row[key] for key in COLUMNS if not key.endswith("_seconds")]


def within(change: Change, row: dict[str, Any]) -> bool:
    """Whether a comparison keeps the bounds."""
    if change.exact:
        return bool(row["same_rows"] == 1 and row["same_bytes"])
    iterative = row["method"] in ITERATIVE
    key, bound = ("mean", LARGEST_SHIFT_OF_A_MEAN) if iterative else ("largest", LARGEST_SHIFT)
    return bool(row["same_targets"] == 1 and max(row[f"deletion_{key}"], row[f"insertion_{key}"]) <= bound)


def said(row: dict[str, Any]) -> str:
    """A comparison in a line."""
    return (
        f"{row['method']} {row['resolution']}, {row['changed']} {row['value']} ({row['n']} images): largest "
        f"{row['deletion_largest']:.1e} / {row['insertion_largest']:.1e}, means {row['deletion_mean']:.1e} / "
        f"{row['insertion_mean']:.1e}, the same: {row['same_rows']:.0%} of rows, {row['same_targets']:.0%} of targets"
    )


def merge(path: Path, rows: pd.DataFrame) -> None:
    """Put the rows in the place of those of the same cells and changes."""
    if path.exists():
        before = pd.read_csv(path, dtype={"value": str}, keep_default_na=False)
        new = set(map(tuple, rows[KEY].astype(str).to_numpy()))
        kept = [tuple(key) not in new for key in before[KEY].astype(str).to_numpy()]
        rows = pd.concat([before[kept], rows])
    write_csv(rows.sort_values(KEY, kind="stable"), path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
