"""Cells -> table: means, intervals, and the paper's numbers beside ours. Needs no torch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .atomic import write_atomically
from .cells import GROUP, MEANS, Cell
from .csv_file import csv_text
from .marks import footnotes, signs
from .statistics import interval

COLUMNS = (
    "method",
    "resolution",
    "model",
    "data",
    "protocol",
    "n",
    "requested",
    "deletion_auc",
    "deletion_ci_low",
    "deletion_ci_high",
    "insertion_auc",
    "insertion_ci_low",
    "insertion_ci_high",
    "explain_seconds",
    "score_seconds",
    "paper_deletion",
    "paper_insertion",
    "run_key",
    "variant",
    "deletion_difference",
    "insertion_difference",
    "marks",
)


def paper_table() -> dict[tuple[str, int], tuple[float, float]]:
    """Table 1 of the seed paper: (method, resolution) -> (deletion, insertion), on VGG19 and 5,000 ImageNet images."""
    here = Path(__file__).parent
    path = next(p for p in (here / "paper_table1.csv", here.parent / "results" / "paper_table1.csv") if p.exists())
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (row["method"], int(row["resolution"])): (float(row["deletion_auc"]), float(row["insertion_auc"]))
            for row in csv.DictReader(file)
        }


def make_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row a cell."""
    paper = paper_table()
    rows = []
    for cell in cells:
        deletion, insertion = (cell.rows[key].to_numpy(dtype=float) for key in ("deletion_auc", "insertion_auc"))
        reference = paper.get((cell.method, cell.resolution), (None, None))
        row = {
            **{key: getattr(cell, key) for key in (*COLUMNS[:7], "run_key", "variant", "marks")},
            **{key: cell.rows[key].mean() for key in MEANS},
            "paper_deletion": reference[0],
            "paper_insertion": reference[1],
        }
        row["deletion_ci_low"], row["deletion_ci_high"] = interval(deletion)
        row["insertion_ci_low"], row["insertion_ci_high"] = interval(insertion)
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({key: float for key in COLUMNS[7:17]})
    for kind in ("deletion", "insertion"):  # ours - the paper's
        table[f"{kind}_difference"] = table[f"{kind}_auc"] - table[f"paper_{kind}"]
    return table


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table in full float precision; empty where there is no number."""
    rows = [{k: "" if pd.isna(v) else v for k, v in row.items()} for row in table.to_dict("records")]
    write_atomically(path, csv_text(table.columns, rows).encode())


def printed(table: pd.DataFrame) -> str:
    """The table for a terminal, each with what its marks mean below it."""
    parts = []
    for (model, data, protocol), group in table.groupby(GROUP, sort=False):
        columns = {
            "method": (group["method"] + " " + group["variant"]).str.strip(),
            "resolution": group["resolution"],
            "n": [f"{row['n']}/{row['requested']}{signs(row['marks'])}" for _, row in group.iterrows()],
        }
        for kind, better in (("deletion", "lower"), ("insertion", "higher")):
            columns[f"{kind} ({better} is better)"] = [area(row, kind) for _, row in group.iterrows()]
            columns["paper" if kind == "deletion" else "paper "] = [number(v) for v in group[f"paper_{kind}"]]
        columns["s/image"] = [number(seconds, 2) for seconds in group["explain_seconds"]]
        columns["run"] = group["run_key"]
        lines = [f"{model}, {data}, protocol {protocol}", pd.DataFrame(columns).to_string(index=False)]
        parts.append("\n".join([*lines, *footnotes(group["marks"])]))
    return "\n\n".join(parts)


def area(row: pd.Series, kind: str) -> str:
    """Mean with its interval: `0.0703 [0.0480, 0.1022]`."""
    return f"{number(row[f'{kind}_auc'])} [{number(row[f'{kind}_ci_low'])}, {number(row[f'{kind}_ci_high'])}]"


def number(value: float, digits: int = 4) -> str:
    """With so many digits; `-` where there is none."""
    return "-" if pd.isna(value) else f"{value:.{digits}f}"
