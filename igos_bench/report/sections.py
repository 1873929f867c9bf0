"""What stands in the tables of the page, as text and as numbers to sort by."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..cells import Cell
from ..compare import compare
from ..errors import UserError, one_line
from ..layout import KINDS, title
from ..marks import footnotes, signs
from ..show import shown
from ..table import make_table, number

MOST_FAILURES = 1000
"""That the page lists; of more it says how many, and where they are."""

WIDTH = 96.0
"""Of the drawn intervals, in CSS pixels."""


@dataclass(frozen=True)
class Measured:
    """A mean with its interval, as text and as a drawing: `low`, `at`, `high` and `zero` in pixels from the left."""

    value: float
    mean: str
    interval: str
    low: float | None
    at: float | None
    high: float | None
    zero: float


def areas(cells: Sequence[Cell]) -> dict[str, Any]:
    """The rows of the table, and the sentences below it."""
    table = make_table(cells)
    scales = {kind: _scale(table, f"{kind}_ci_low", f"{kind}_auc", f"{kind}_ci_high") for kind in KINDS}
    best = {kind: _best(table, kind) for kind in KINDS}
    rows = []
    for cell, (index, row) in zip(cells, table.iterrows(), strict=True):
        found: dict[str, Any] = {
            "title": title(cell.label),
            "resolution": cell.resolution,
            "images": f"{cell.n:,}" if cell.complete else f"{cell.n:,} of {cell.requested:,}",
            "n": cell.n,
            "signs": signs(row["marks"]),
            "key": cell.run_key,
        }
        for kind in KINDS:
            mean, low, high = (float(row[f"{kind}_{part}"]) for part in ("auc", "ci_low", "ci_high"))
            found[kind] = _measured(mean, low, high, scales[kind])
            found[f"{kind}_best"] = index in best[kind]
            found[f"{kind}_paper"] = number(row[f"paper_{kind}"])
            found[f"{kind}_difference"] = signed(row[f"{kind}_difference"])
        rows.append(found)
    notes = list(footnotes(table["marks"]))
    if (cells[0].model, cells[0].data) != ("vgg19", "imagenet"):
        notes.append(
            f"The paper's numbers are of VGG19 on 5,000 ImageNet validation images. Here the model is {cells[0].model} "
            f"and the images are {cells[0].data}: the differences to them are no test of the paper."
        )
    return {"rows": rows, "notes": notes}


def differences(cells: Sequence[Cell]) -> dict[str, Any]:
    """Every pair of methods on the same images; where there is none, why."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            table = compare(cells)
        except UserError as error:
            return {"rows": [], "notes": [str(error), *(str(warning.message) for warning in caught)]}
    scale = _scale(table, "ci_low", "difference", "ci_high")
    titles = {cell.label: title(cell.label) for cell in cells}
    marks = {(cell.label, cell.resolution): cell.marks for cell in cells}
    rows = [
        {
            "resolution": row["resolution"],
            "area": row["area"],
            **{key: titles[row[key]] + signs(marks[row[key], row["resolution"]]) for key in ("method", "other")},
            "n": row["n"],
            "difference": _measured(row["difference"], row["ci_low"], row["ci_high"], scale, signed),
            "wilcoxon_p": row["wilcoxon_p"],
            "holm_p": row["holm_p"],
            "winner": titles.get(_winner(row), ""),
        }
        for _, row in table.iterrows()
    ]
    return {
        "rows": rows,
        "comparisons": int(table["comparisons"].iloc[0]),
        "notes": [
            *(str(warning.message) for warning in caught),
            *footnotes(
                marks[row[key], row["resolution"]] for key in ("method", "other") for _, row in table.iterrows()
            ),
        ],
    }


def times(cells: Sequence[Cell]) -> dict[str, Any]:
    """Seconds and passes an image of every cell, and on what machine; and the sentences below."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        mean = cell.rows[["explain_seconds", "score_seconds", "forwards", "backwards"]].mean()
        run = _run(cell)
        rows.append(
            {
                "title": title(cell.label) + signs(cell.marks),
                "resolution": cell.resolution,
                "explain": float(mean["explain_seconds"]),
                "score": float(mean["score_seconds"]),
                "forwards": float(mean["forwards"]),
                "backwards": float(mean["backwards"]),
                "machine": _machine(run),
                "timing": str(run.get("config", {}).get("timing", "not known")),
                "key": cell.run_key,
            }
        )
    longest = max((row["explain"] + row["score"] for row in rows if row["explain"] + row["score"] > 0), default=1.0)
    for row in rows:
        for key in ("explain", "score"):
            row[f"{key}_width"] = 0.0 if math.isnan(row[key]) else row[key] / longest * WIDTH
    return {"rows": rows, "notes": footnotes(cell.marks for cell in cells)}


def failures(cells: Sequence[Cell]) -> dict[str, Any]:
    """Every image that could not be done, and why, as far as they can be listed."""
    rows = [
        {
            "image": image,
            "title": title(cell.label),
            "resolution": cell.resolution,
            "reason": one_line(reason),
            "key": cell.run_key,
        }
        for cell in cells
        for image, reason in cell.failures.items()
    ]
    return {"rows": rows[:MOST_FAILURES], "more": max(0, len(rows) - MOST_FAILURES)}


def provenance(cells: Sequence[Cell]) -> Iterator[dict[str, str]]:
    """What `igos-bench show` says of every run."""
    for folder, cell in {cell.directory.path: cell for cell in cells}.items():
        try:
            text = shown(folder)
        except UserError as error:
            text = str(error)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            text = f"{folder / 'run.json'} is not as a run leaves it ({type(error).__name__}: {error}): it was edited"
        yield {"title": title(cell.label), "resolution": str(cell.resolution), "key": cell.run_key, "text": text}


def signed(value: float) -> str:
    """With four digits and its sign; `-` where there is none."""
    return number(value) if pd.isna(value) else f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def _best(table: pd.DataFrame, kind: str) -> set[Any]:
    """Of each resolution the best mean, among the complete cells that have the most images, if they are several."""
    found = set()
    complete = table[~table["marks"].str.contains("incomplete")]
    for _, group in complete.groupby("resolution"):
        rivals = group[group["n"] == group["n"].max()][f"{kind}_auc"].dropna()
        if len(rivals) > 1:
            found.add(rivals.idxmin() if kind == "deletion" else rivals.idxmax())
    return found


def _winner(row: pd.Series) -> str:
    """The better method where the interval leaves out zero, and Holm's p is below 0.05."""
    if row["holm_p"] >= 0.05 or row["ci_low"] <= 0 <= row["ci_high"]:
        return ""
    return str(row["method"] if (row["difference"] < 0) == (row["area"] == "deletion") else row["other"])


def _scale(table: pd.DataFrame, *columns: str) -> tuple[float, float]:
    """From zero, or below, to the largest value that is drawn."""
    values = [value for column in columns for value in table[column] if not pd.isna(value)]
    low, high = min([0.0, *values]), max([0.0, *values])
    return low, high if high > low else low + 1.0


def _measured(mean: float, low: float, high: float, scale: tuple[float, float], text: Any = number) -> Measured:
    def place(value: float) -> float | None:
        return None if pd.isna(value) else round((value - scale[0]) / (scale[1] - scale[0]) * (WIDTH - 8) + 4, 1)

    interval = "" if pd.isna(low) else f"{text(low)}, {text(high)}"
    zero = place(0.0)
    assert zero is not None
    return Measured(mean, text(mean), interval, place(low), place(mean), place(high), zero)


def _run(cell: Cell) -> Mapping[str, Any]:
    return cell.directory.read_provenance() or {}


def _machine(run: Mapping[str, Any]) -> str:
    known = [str(run[key]) for key in ("processor", "device", "precision") if key in run]
    if "threads" in run:
        known.append(f"{run['threads']} thread{'s' * (run['threads'] != 1)}")
    return ", ".join(known) or "not known"
