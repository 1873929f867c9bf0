"""Paired differences between methods on the same images, which the paper does not have."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations, groupby
from typing import Any

import pandas as pd

from .cells import GROUP, Cell
from .errors import UserError
from .statistics import holm, interval, wilcoxon

COLUMNS = (
    "model",
    "data",
    "protocol",
    "resolution",
    "area",
    "method",
    "other",
    "n",
    "difference",
    "ci_low",
    "ci_high",
    "wilcoxon_p",
    "holm_p",
    "comparisons",
    "run_key",
    "other_run_key",
)


def compare(cells: Sequence[Cell]) -> pd.DataFrame:
    """Every pair of cells of one model, data set, protocol and resolution, for both areas.

    Each row is a mean paired difference `method` - `other` over the images that both have, with its 95 % paired
    bootstrap interval, the two-sided p of Wilcoxon's signed-rank test, and that p after Holm's correction for all the
    `comparisons` made under the same model, data and protocol.

    Cells with fewer than two images in common are passed over, with a warning.

    Raises:
        UserError: Nothing can be compared.
    """
    rows = []
    for _, family in groupby(cells, key=lambda cell: (cell.model, cell.data, cell.protocol)):
        family_rows = [
            _difference(one, other, area)
            for one, other in combinations(sorted(family, key=lambda cell: -cell.resolution), 2)
            if one.resolution == other.resolution and _share_images(one, other)
            for area in ("deletion", "insertion")
        ]
        corrected = holm([row["wilcoxon_p"] for row in family_rows])
        rows += [
            {**row, "holm_p": p, "comparisons": len(family_rows)} for row, p in zip(family_rows, corrected, strict=True)
        ]
    if not rows:
        raise UserError(
            "nothing to compare: no two methods share model, data, protocol, resolution and images; run another one, "
            "such as `igos-bench method=mask resolution=28`"
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _share_images(one: Cell, other: Cell) -> bool:
    common = len(one.rows.index.intersection(other.rows.index))
    if common < 2:
        warnings.warn(
            f"{one.label} and {other.label} at {one.resolution} are not compared: they have {common} images in common "
            f"and 2 are needed; score both on the same images, data.list=images.txt of one of them",
            stacklevel=2,
        )
    return common >= 2


def _difference(one: Cell, other: Cell, area: str) -> dict[str, Any]:
    both = pd.concat([cell.rows[f"{area}_auc"] for cell in (one, other)], axis=1, join="inner")
    differences = (both.iloc[:, 0] - both.iloc[:, 1]).to_numpy(dtype=float)
    low, high = interval(differences)
    return {
        **{key: getattr(one, key) for key in ("model", "data", "protocol", "resolution", "run_key")},
        "area": area,
        "method": one.label,
        "other": other.label,
        "n": len(both),
        "difference": differences.mean(),
        "ci_low": low,
        "ci_high": high,
        "wilcoxon_p": wilcoxon(differences),
        "other_run_key": other.run_key,
    }


def printed(comparison: pd.DataFrame) -> str:
    """The comparison for a terminal."""
    parts = []
    for (model, data, protocol), group in comparison.groupby(GROUP, sort=False):
        shown = pd.DataFrame(
            {
                "resolution": group["resolution"],
                "area": group["area"],
                "method - other": group["method"] + " - " + group["other"],
                "n": group["n"],
                "difference": [
                    f"{row['difference']:+.4f} [{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]"
                    for _, row in group.iterrows()
                ],
                "p (Wilcoxon)": [f"{p:.2g}" for p in group["wilcoxon_p"]],
                f"p (Holm, {len(group)} tests)": [f"{p:.2g}" for p in group["holm_p"]],
            }
        )
        parts.append(f"{model}, {data}, protocol {protocol}\n{shown.to_string(index=False)}")
    return "\n\n".join(parts)
