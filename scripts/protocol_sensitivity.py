"""How far each choice of the metric moves the numbers, and whether it reorders methods.

    python scripts/protocol_sensitivity.py [results_dir=results] [model=efficientnet_lite0] [data=sample]

Takes the finished runs of one model and data under `protocol=paper` and scores their maps with one choice changed:

    n_steps        10, 20, 50, 100, 200    from the stored curves, exactly: their points are among those of 200 steps
    area           right                   from the stored curves
    protocol       rise, igos_pp           as their YAML has them
    baseline       mean, blur_11_5         of both curves, at 50 steps: ImageNet's mean colour; a blur, 11 taps, sigma 5
    ties           0, 1, 2: a seed         tied elements in random order, at 50 steps; cells whose maps have ties
    preprocessing  antialias               another run, explained anew: reported where it is, else how to make it
    noise          rgb                     another run of the methods that draw noise

Other words: `out=FILE`, `seed=0` of the runs, `limit=N` images, and `choices=[...]`, `methods=[...]`,
`resolutions=[...]` to compute only those. OUT gets a row a choice, value and cell (a method at a resolution); what is
there from the same run over as many images is not computed again. Shifts are means over images against the reference:
`paper`, with 50 steps where the variant has 50. Ranks are among the cells of a resolution, 1 the best, in the variant
and in its reference; a cell that a choice cannot touch (no ties, no noise) has its reference's numbers in both.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from options import read_options
from rerun import commands
from scipy.stats import kendalltau
from stored import config_of, finished_runs, protocol_of, reference_cells, score_again, stored_areas

from igos_bench.cells import Cell
from igos_bench.config import RunConfig
from igos_bench.errors import UserError, unknown
from igos_bench.metrics import Protocol
from igos_bench.perturb import Baseline
from igos_bench.table import write_csv

AREAS = ("deletion", "insertion")
ANEW = {"preprocessing": "preprocessing", "noise": "method.noise"}  # choices that need other maps: the key to set
CHOICES = ("n_steps", "area", "protocol", "baseline", "ties", *ANEW)
PLACE = ("choice", "value", "method", "resolution")
MEANS = tuple(f"{kind}_{number}" for number in ("auc", "shift") for kind in AREAS)
RANKS = tuple(f"{kind}_{number}" for number in ("rank", "rank_reference") for kind in AREAS)
COLUMNS = ("model", "data", *PLACE, "n", *MEANS, *RANKS, "run_key")


@dataclass
class Options:
    """The script's words."""

    results_dir: str = "results"
    out: str = "results/protocol_sensitivity.csv"
    model: str = "efficientnet_lite0"
    data: str = "sample"
    seed: int = 0
    limit: int | None = None
    choices: list[str] = field(default_factory=lambda: list(CHOICES))
    methods: list[str] | None = None
    resolutions: list[int] | None = None


def main(words: Sequence[str]) -> int:
    """Compute what is missing in the table, write it, and say what it shows."""
    try:
        options = asked(words)
        runs = finished_runs(options.results_dir, options.model, options.data)
        table = Table(options)
        missing = fill(table, reference_cells(runs, options.seed), runs, options)
        print(summary(table.ranked()))
        if table.path.exists():
            print(f"\nwritten to {options.out}")
        if missing:
            print("\nnot there yet; these make them:", *commands(missing, options.results_dir), sep="\n  ")
    except UserError as error:
        print(f"protocol_sensitivity: {error}", file=sys.stderr)
        return 2
    return 0


def asked(words: Sequence[str]) -> Options:
    """Raises UserError where a word, its type or a choice is not known."""
    options = read_options(Options, words)
    if strange := [choice for choice in options.choices if choice not in CHOICES]:
        raise UserError(unknown("choice", strange[0], CHOICES))
    if options.limit is not None and options.limit < 1:
        raise UserError(f"limit must be at least 1, found {options.limit}")
    return options


def fill(table: Table, cells: Sequence[Cell], runs: Sequence[Cell], options: Options) -> list[tuple[RunConfig, str]]:
    """Add the rows that are not there; return the runs that they lack: that of a cell, and what it differs in."""
    all_rows = [(cell, list(cell.rows.index[: options.limit]), variant) for cell in cells for variant in variants()]
    for cell, image_ids, variant in all_rows:  # before the others, which are ranked with them
        if not touches(variant.choice, cell, image_ids):
            areas = stored_areas(cell, variant.reference, image_ids)
            table.put(variant, cell, "", areas, areas)
    missing = []
    for cell, image_ids, variant in all_rows:
        if not (is_asked(variant, cell, options) and touches(variant.choice, cell, image_ids)):
            continue
        scored = cell
        if key := ANEW.get(variant.choice):
            like = (cell.method, cell.resolution, {**cell.settings, key: variant.value})
            found = [run for run in runs if (run.method, run.resolution, run.settings) == like]
            if not found:
                missing.append((config_of(cell, options.limit), f"{key}={variant.value}"))
                continue
            scored = found[0]
            image_ids = [image_id for image_id in image_ids if image_id in scored.rows.index]
        if not image_ids or table.has(variant, cell, scored.run_key, len(image_ids)):
            continue
        reference = stored_areas(cell, variant.reference, image_ids)
        if variant.choice in ("protocol", "baseline", "ties"):
            seed = variant.value if variant.choice == "ties" else None
            areas = score_again(scored, variant.protocol, image_ids, tie_seed=seed)
        else:
            areas = stored_areas(scored, variant.protocol, image_ids)
        table.put(variant, cell, scored.run_key, areas, reference)
        table.write()
    return missing


# The choices


@dataclass(frozen=True)
class Variant:
    """One choice changed; of `ties`, the value seeds their order."""

    choice: str
    value: str
    protocol: Protocol
    reference: Protocol


def variants() -> Iterator[Variant]:
    """All values of all choices."""
    paper = protocol_of("paper")
    short = replace(paper, n_steps=50)
    for n in (10, 20, 50, 100, 200):
        yield Variant("n_steps", str(n), replace(paper, n_steps=n), paper)
    yield Variant("area", "right", replace(paper, area="right"), paper)
    for name in ("rise", "igos_pp"):
        yield Variant("protocol", name, protocol_of(name), paper)
    for name, baseline in (("mean", Baseline("mean")), ("blur_11_5", Baseline("blur", 11, 5.0))):
        changed = replace(short, deletion_baseline=baseline, insertion_baseline=baseline)
        yield Variant("baseline", name, changed, short)
    for seed in range(3):
        yield Variant("ties", str(seed), short, short)
    yield Variant("preprocessing", "antialias", paper, paper)
    yield Variant("noise", "rgb", paper, paper)


def touches(choice: str, cell: Cell, image_ids: list[str]) -> bool:
    """Whether a choice can change anything about a cell."""
    if choice == "ties":
        return bool((cell.rows.loc[image_ids, "ties"] > 0).any())
    return choice != "noise" or "method.noise" in cell.settings


def is_asked(variant: Variant, cell: Cell, options: Options) -> bool:
    """Whether the words name this row."""
    return (
        variant.choice in options.choices
        and (options.methods is None or cell.method in options.methods)
        and (options.resolutions is None or cell.resolution in options.resolutions)
    )


# The table


class Table:
    """OUT. A row without a run is not written, but ranked with the others."""

    def __init__(self, options: Options) -> None:
        """Read what is there; raises UserError where that is another table."""
        self.path, self.common = Path(options.out), {"model": options.model, "data": options.data}
        self.others: list[dict[str, Any]] = []  # of other models and data
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        if not self.path.exists():
            return
        kinds = {**dict.fromkeys(("resolution", "n", *RANKS), int), **dict.fromkeys(MEANS, float)}
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise UserError(f"{self.path} is no table of this script: name another file, out=FILE")
            for text in reader:
                row = {key: kinds.get(key, str)(value) for key, value in text.items()}
                if self.common.items() <= row.items():
                    self.rows[tuple(row[key] for key in PLACE)] = row
                else:
                    self.others.append(row)

    def has(self, variant: Variant, cell: Cell, run_key: str, n: int) -> bool:
        """Whether a row is there; raises UserError where it is over more images, which must not be lost."""
        row = self.rows.get((variant.choice, variant.value, cell.method, cell.resolution), {})
        if row.get("run_key") != run_key:
            return False
        if row["n"] > n:
            raise UserError(
                f"{self.path} has {cell.method} at {cell.resolution} over {row['n']} images, this would be over {n}: "
                "name another file, out=FILE"
            )
        return bool(row["n"] == n)

    def put(self, variant: Variant, cell: Cell, run_key: str, areas: np.ndarray, reference: np.ndarray) -> None:
        """Add a row with these areas (2,n), or put it in the place of another."""
        place = (variant.choice, variant.value, cell.method, cell.resolution)
        auc, shift = areas.mean(1), areas.mean(1) - reference.mean(1)
        numbers = dict(zip(MEANS, map(float, [*auc, *shift]), strict=True))
        row = {**self.common, **dict(zip(PLACE, place, strict=True)), "n": areas.shape[1], **numbers}
        if run_key or place not in self.rows:
            self.rows[place] = {**row, "run_key": run_key}
        if run_key:
            said = [f"{kind} {row[f'{kind}_auc']:.4f} ({row[f'{kind}_shift']:+.4f})" for kind in AREAS]
            print(f"{'{}={} {} {}'.format(*place)} ({row['n']} images): {', '.join(said)}", flush=True)

    def ranked(self) -> pd.DataFrame:
        """Our rows with all ranks, and the areas that they are compared with, `deletion_reference` and so on."""
        table = pd.DataFrame(sorted(self.rows.values(), key=_order), columns=list(COLUMNS))
        for kind in AREAS:
            table[f"{kind}_reference"] = table[f"{kind}_auc"] - table[f"{kind}_shift"]
            for areas, rank in ((f"{kind}_auc", f"{kind}_rank"), (f"{kind}_reference", f"{kind}_rank_reference")):
                # Rounded: a reference is an area less its shift, and equal cells must not be parted by that.
                groups = table.round({areas: 12}).groupby(["choice", "value", "resolution"])[areas]
                table[rank] = groups.rank(method="min", ascending=kind == "deletion").astype(int)
        return table

    def write(self) -> None:
        """Write all rows."""
        ranked = self.ranked()
        rows = [*self.others, *ranked[ranked["run_key"] != ""].to_dict("records")]
        write_csv(pd.DataFrame(sorted(rows, key=_order), columns=list(COLUMNS)), self.path)


def _order(row: Any) -> tuple[Any, ...]:
    """Where a row stands: choices as they are listed, values by number, finest first."""
    value = row["value"].zfill(4) if row["value"].isdigit() else row["value"]
    return row["model"], row["data"], CHOICES.index(row["choice"]), value, row["method"], -row["resolution"]


# What it shows


def summary(table: pd.DataFrame) -> str:
    """A line a choice, value and area: how far the cells that it touches move, and how much of the order changes."""
    lines = [
        f"{'':<41}shift of a cell's mean           order of methods",
        f"{'choice':<25}area       cells    mean  |mean|  largest     tau  pairs swapped",
    ]
    swaps = []
    for (choice, value), group in table.groupby(["choice", "value"], sort=False):
        touched = group[group["run_key"] != ""]
        for kind in AREAS if len(touched) else ():
            shifts = touched[f"{kind}_shift"].to_numpy(dtype=float)
            both = group[["method", "resolution"]].assign(before=group[f"{kind}_reference"], now=group[f"{kind}_auc"])
            tau = kendalltau(both["now"], both["before"]).statistic if len(both) > 1 else np.nan
            pairs = list(differences(both))
            swapped = [pair for pair in pairs if pair[1] * pair[2] < 0]
            name = f"{f'{choice}={value}':<25}{kind:<10}"
            lines.append(
                f"{name} {len(shifts):>5} {shifts.mean():>+7.4f} {np.abs(shifts).mean():>7.4f} "
                f"{shifts[np.abs(shifts).argmax()]:>+8.4f} {tau:>7.3f}  {len(swapped)} of {len(pairs)}"
            )
            swaps += [f"{name} {methods}: {before:+.4f} -> {now:+.4f}" for methods, before, now in swapped]
    lines += ["", "tau: Kendall's, of all cells against their order in the reference"]
    if swaps:
        lines += ["", "swapped pairs, with the difference of their means in the reference and now:", *swaps]
    return "\n".join(["", *lines])


def differences(cells: pd.DataFrame) -> Iterator[tuple[str, float, float]]:
    """Every two methods at one resolution, with the difference of their areas before and now."""
    for resolution, group in cells.groupby("resolution", sort=False):
        for (_, a), (_, b) in combinations(group.iterrows(), 2):
            yield f"{a['method']} - {b['method']} at {resolution}", a["before"] - b["before"], a["now"] - b["now"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
