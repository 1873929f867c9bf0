"""How near `igos-bench plan` comes: it prices cells before they run, and then they run.

    python scripts/plan_check.py [limit=10] [out=results/plan_check.csv]

Grad-CAM and I-GOS at 14 are run first, on the sample, and are all that the plan knows of the machine; the cells that it
prices by them, and by `rate=measured`, are of other methods or resolutions. Ten images are a chunk: fewer of Mask's do
not fill the micro-batches that the rate is of. RISE has 1,000 masks. Some eight minutes on two cores, alone.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from bench_report import machine
from options import read_options

from igos_bench import plan
from igos_bench.cells import find_cells
from igos_bench.errors import UserError
from igos_bench.overrides import compose_config

KNOWN = [("grad_cam", 14), ("igos", 14)]
PRICED = [("igos", 224), ("mask", 28), ("integrated_gradients", 224), ("rise", 224), ("excitation_bp", 28)]
ALLOWED = 0.2


@dataclass
class Options:
    """`limit`: images of each cell."""

    limit: int = 10
    out: str = str(Path(__file__).resolve().parent.parent / "results" / "plan_check.csv")


def main() -> int:
    """Price, run, compare; 1 where a price is further off than a fifth."""
    try:
        options = read_options(Options)
    except UserError as error:
        print(f"plan_check: {error}", file=sys.stderr)
        return 2
    rows = []
    with TemporaryDirectory() as folder:
        for cell in KNOWN:
            run(cell, options.limit, folder)
        priced = {
            (cell, rate): price(cell, options.limit, folder, rate) for cell in PRICED for rate in (None, "measured")
        }
        for cell in PRICED:
            run(cell, options.limit, folder)
        taken = {(cell.method, cell.resolution): cell.rows for cell in find_cells(Path(folder))}
        for (cell, _), (seconds, source) in priced.items():
            found = float((taken[cell]["explain_seconds"] + taken[cell]["score_seconds"]).mean())
            rows.append(
                {
                    "method": cell[0],
                    "resolution": cell[1],
                    "known_by": source,
                    "planned_seconds": seconds,
                    "seconds": found,
                    "off_by": seconds / found - 1,
                }
            )
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.3g"))
    table.assign(images=options.limit, **machine()).to_csv(options.out, index=False, float_format="%.4g")
    return int((table["off_by"].abs() > ALLOWED).any())


def words(cell: tuple[str, int], limit: int, folder: str) -> list[str]:
    """What asks for a cell."""
    fewer = ["method.masks=1000"] if cell[0] == "rise" else []
    return [f"method={cell[0]}", f"resolution={cell[1]}", f"data.limit={limit}", f"results_dir={folder}", *fewer]


def price(cell: tuple[str, int], limit: int, folder: str, rate: str | None) -> tuple[float, str]:
    """Seconds an image, and what tells."""
    planned = plan.plan(compose_config(words(cell, limit, folder)), rate=rate)
    assert planned.seconds is not None
    return planned.seconds, planned.source


def run(cell: tuple[str, int], limit: int, folder: str) -> None:
    """As a user does."""
    subprocess.run([sys.executable, "-m", "igos_bench", *words(cell, limit, folder)], check=True)


if __name__ == "__main__":
    sys.exit(main())
