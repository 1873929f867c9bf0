"""Rows -> table: means, intervals, and the paper's numbers beside ours. Needs no torch."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from .errors import UserError
from .results import csv_text, read_json, read_records, write_atomically

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


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval (scipy's BCa, 10,000 resamples, seeded) of the mean; nan for fewer than two values."""
    if len(values) < 2:
        return float("nan"), float("nan")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (values,), np.mean, n_resamples=10_000, confidence_level=confidence, rng=np.random.default_rng(0)
        ).confidence_interval
    return float(found.low), float(found.high)


def make_table(results_dir: Path) -> pd.DataFrame:
    """One row a run and protocol found under `results_dir`/runs.

    Raises:
        UserError: There are no runs.
    """
    paper = paper_table()
    rows = []
    for records in sorted(results_dir.glob("runs/*/*/*/*/*/*/records.csv")):
        provenance = read_json(records.parent.parent / "run.json")
        if provenance is None:
            continue
        table = read_records(records)
        table = table[table["status"] == "ok"]
        deletion, insertion = (table[key].to_numpy(dtype=float) for key in ("deletion_auc", "insertion_auc"))
        key = (provenance["method"], provenance["resolution"])
        reference = paper.get(key, (float("nan"), float("nan")))
        protocol, _, _ = records.parent.name.rpartition("-")
        row = {
            **{name: provenance[name] for name in ("method", "resolution", "model", "data", "requested")},
            "protocol": protocol,
            "n": len(table),
            "deletion_auc": deletion.mean() if len(table) else None,
            "insertion_auc": insertion.mean() if len(table) else None,
            "explain_seconds": table["explain_seconds"].mean(),
            "score_seconds": table["score_seconds"].mean(),
            "paper_deletion": reference[0],
            "paper_insertion": reference[1],
            "run_key": provenance["map_key"],
        }
        row["deletion_ci_low"], row["deletion_ci_high"] = interval(deletion)
        row["insertion_ci_low"], row["insertion_ci_high"] = interval(insertion)
        rows.append(row)
    if not rows:
        raise UserError(f"no runs under {results_dir / 'runs'}: make one with `igos-bench method=igos resolution=28`")
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values(["model", "data", "protocol", "method", "resolution"], ascending=[True] * 4 + [False])


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write table.csv; empty cells where there is no number."""
    rows = [{k: "" if pd.isna(v) else v for k, v in row.items()} for row in table.to_dict("records")]
    write_atomically(path, csv_text(COLUMNS, rows).encode())


def printed(table: pd.DataFrame) -> str:
    """The table for a terminal; a cell whose n is not what was requested is marked with `!`."""

    def area(row: pd.Series, key: str) -> str:
        return f"{row[f'{key}_auc']:.4f} [{row[f'{key}_ci_low']:.4f}, {row[f'{key}_ci_high']:.4f}]"

    shown = pd.DataFrame(
        {
            "method": table["method"],
            "resolution": table["resolution"],
            "model": table["model"],
            "data": table["data"],
            "protocol": table["protocol"],
            "n": [f"{n}/{r}{'' if n == r else ' !'}" for n, r in zip(table["n"], table["requested"], strict=True)],
            "deletion (lower is better)": [area(row, "deletion") for _, row in table.iterrows()],
            "insertion (higher is better)": [area(row, "insertion") for _, row in table.iterrows()],
            "s/image": [f"{seconds:.2f}" for seconds in table["explain_seconds"]],
            "run": table["run_key"],
        }
    )
    return shown.to_string(index=False)
