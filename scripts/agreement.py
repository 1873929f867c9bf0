"""How far two runs of the same cells agree: other precision, other commit, other machine.

    python scripts/agreement.py other.precision=bf16
    python scripts/agreement.py reference.results_dir=before other.results_dir=after out=moved.csv

Every cell that both sides have, with the images that both have: the means, by how much they moved, with the standard
error of that (`_moved_se`), and the image that moved most. Written to `out` with the commits and machines of the
runs, and printed. Exit code 2 where there are none.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from options import read_options
from rerun import has_default_method, read_config

from igos_bench.cells import Cell, find_cells
from igos_bench.errors import UserError
from igos_bench.formats import read_json

AREAS = ("deletion", "insertion")


@dataclass
class Side:
    """Where runs are, and which of them."""

    results_dir: str = "results"
    precision: str = "fp32"


@dataclass
class Options:
    """The two sides, and the file that says how far they are apart."""

    reference: Side = field(default_factory=Side)
    other: Side = field(default_factory=Side)
    model: str = "efficientnet_lite0"
    data: str = "sample"
    protocol: str = "paper"
    seed: int = 0
    out: str = "results/agreement.csv"


def main() -> int:
    """Compare, print, write."""
    try:
        options = read_options(Options)
        table = compare(cells_of(options.reference, options), cells_of(options.other, options))
    except UserError as error:
        print(f"agreement: {error}", file=sys.stderr)
        return 2
    table.to_csv(options.out, index=False)
    shown = table.drop(columns=[name for name in table if str(name).startswith(("reference_", "other_"))])
    print(shown.to_string(index=False, float_format="{:.4f}".format))
    print(f"written to {options.out}")
    return 0


def cells_of(side: Side, options: Options) -> list[Cell]:
    """The cells of a side with the hyper-parameters that `conf/` has."""
    asked = {"seed": str(options.seed), "precision": side.precision, "preprocessing": "plain"}
    place = (options.model, options.data, options.protocol)
    found = [
        cell
        for cell in find_cells(Path(side.results_dir))
        if (cell.model, cell.data, cell.protocol) == place
        and all(cell.settings[key] == value for key, value in asked.items())
        and has_default_method(read_config(_run(cell)["config"]))
    ]
    if not found:
        raise UserError(
            f"{side.results_dir} has no run in {side.precision} of {options.model} on {options.data} under "
            f"{options.protocol} with seed {options.seed}: make some with igos-bench precision={side.precision} "
            f"results_dir={side.results_dir}"
        )
    return found


def _run(cell: Cell) -> dict[str, Any]:
    run = read_json(cell.directory.path / "run.json")
    assert run is not None  # `find_cells` has read it
    return run


def compare(reference: Sequence[Cell], other: Sequence[Cell]) -> pd.DataFrame:
    """A row a cell that both have; raises UserError where there is none."""
    others = {(cell.method, cell.resolution): cell for cell in other}
    rows = []
    for one in sorted(reference, key=lambda cell: (cell.method, -cell.resolution)):
        two = others.get((one.method, one.resolution))
        if two is None:
            continue
        common = one.rows.index.intersection(two.rows.index)
        if common.empty:
            continue
        row: dict[str, object] = {"method": one.method, "resolution": one.resolution, "n": len(common)}
        for area in AREAS:
            before, after = (cell.rows.loc[common, f"{area}_auc"] for cell in (one, two))
            row[area] = before.mean()
            row[f"{area}_moved"] = after.mean() - before.mean()
            row[f"{area}_moved_se"] = (after - before).sem()
            row[f"{area}_of_an_image"] = (after - before).abs().max()
        for name, cell in (("reference", one), ("other", two)):
            run = _run(cell)
            row |= {
                f"{name}_key": cell.run_key,
                f"{name}_commit": run["git"]["commit"],
                f"{name}_started": run["started"],
                f"{name}_batch_size": run["batch_size"],
            }
        rows.append(row)
    if not rows:
        raise UserError("the two sides have no image of a cell in common")
    return pd.DataFrame(rows)


if __name__ == "__main__":
    sys.exit(main())
