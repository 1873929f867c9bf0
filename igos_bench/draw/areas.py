"""What methods reach: deletion against insertion, and the areas against the seconds that their maps take."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import looks, title

NAMES = {"deletion": "Deletion area (lower is better)", "insertion": "Insertion area (higher is better)"}
HEIGHT_OF_LEGEND = 0.16  # inches a line


def scatter(table: pd.DataFrame, width: float) -> Figure:
    """Deletion (across) against insertion (up), a point a cell with its 95 % intervals and its resolution.

    Args:
        table: As `make_table` makes it, of one model, data set and protocol.
        width: In inches.
    """
    figure, (axes,) = _panels(table, width, 1, 0.85 * width)
    _points(axes, table, "deletion", "insertion")
    axes.set_xlabel(NAMES["deletion"])
    axes.set_ylabel(NAMES["insertion"])
    axes.annotate(
        "better", (0.01, 0.99), (0.12, 0.88), "axes fraction", arrowprops={"arrowstyle": "->", "lw": 0.8}, color="0.3"
    )
    return figure


def time(table: pd.DataFrame, width: float) -> Figure:
    """Seconds an image's map takes (across, logarithmic) against both areas with their 95 % intervals.

    Cells without seconds, of maps made elsewhere, are left out. Arguments as of `scatter`.
    """
    timed = table[table["explain_seconds"] > 0]
    figure, both = _panels(timed, width, 2, 0.62 * width if width > 5 else 1.5 * width)
    for axes, kind in zip(both, ("deletion", "insertion"), strict=True):
        _points(axes, timed, "explain_seconds", kind)
        axes.set_xscale("log")
        axes.set_xlabel("Seconds a map (explaining alone)")
        axes.set_ylabel(NAMES[kind])
    return figure


def _panels(table: pd.DataFrame, width: float, count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Axes beside one another, or below one another in a single column, over a legend of the methods."""
    labels = list(dict.fromkeys(_labels(table)))
    columns = 3 if width > 5 else 2
    columns = 1 if max(len(title(label)) for label in labels) > 24 else columns
    lines = -(-len(labels) // columns)
    figure = Figure((width, height + lines * HEIGHT_OF_LEGEND), layout="constrained")
    rows, across = (1, count) if width > 5 else (count, 1)
    panels = list(np.ravel(figure.subplots(rows, across, squeeze=False)))
    handles = [
        panels[0].plot([], [], linestyle="none", color=colour, marker=marker, markersize=4, label=title(label))[0]
        for label, (colour, marker) in looks(labels).items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handletextpad=0.1, columnspacing=1)
    return figure, panels


def _points(axes: Axes, table: pd.DataFrame, across: str, up: str) -> None:
    look = looks(_labels(table))
    for label, (_, row) in zip(_labels(table), table.iterrows(), strict=True):
        colour, marker = look[label]
        at = [row["explain_seconds"] if kind == "explain_seconds" else row[f"{kind}_auc"] for kind in (across, up)]
        bars = [None if kind == "explain_seconds" else _bar(row, kind) for kind in (across, up)]
        axes.errorbar(*at, xerr=bars[0], yerr=bars[1], color=colour, marker=marker, markersize=4, elinewidth=0.5)
        axes.annotate(str(row["resolution"]), at, (3, 3), textcoords="offset points", fontsize=5.5, color=colour)


def _bar(row: pd.Series, kind: str) -> np.ndarray | None:
    """Lengths (2, 1) below and above the mean of its interval; None where there is no interval."""
    mean, low, high = (row[f"{kind}_{end}"] for end in ("auc", "ci_low", "ci_high"))
    return None if pd.isna(low) else np.array([[mean - low], [high - mean]]).clip(min=0)


def _labels(table: pd.DataFrame) -> list[str]:
    return list((table["method"] + " " + table["variant"]).str.strip())
