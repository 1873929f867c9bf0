"""(l1, l2) that scripts/tune.py chose, by model, method and resolution: what `method.lambdas=tuned` stands for."""

from __future__ import annotations

import csv
from pathlib import Path

from .errors import UserError

HERE = Path(__file__).parent


def tuned_lambdas(model: str, method: str) -> dict[int, tuple[float, float]]:
    """Resolution -> (l1, l2) from `tuned_lambdas.csv`; raises UserError where nothing was tuned for the two."""
    path = next(
        (place for folder in (HERE, HERE.parent / "results") if (place := folder / "tuned_lambdas.csv").is_file()), None
    )
    rows: list[dict[str, str]] = []
    if path is not None:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    found = {
        int(row["resolution"]): (float(row["l1"]), float(row["l2"]))
        for row in rows
        if (row["model"], row["method"]) == (model, method)
    }
    if not found:
        there = ", ".join(sorted({f"{row['method']} on {row['model']}" for row in rows})) or "nothing"
        raise UserError(
            f"method.lambdas=tuned: nothing was tuned for {method} on {model}, only for {there}; leave method.lambdas "
            f"as it is, or run scripts/tune.py on images that you do not report"
        )
    return found
