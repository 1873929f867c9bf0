"""What methods reach: deletion against insertion, and the areas against the seconds that their maps take."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator

from ..layout import KINDS, TITLES, title
from ..marks import footnotes, signs
from .numbers import FONT, grid, size_of, spots
from .style import looks

NAMES = {"deletion": "Deletion area (lower is better)", "insertion": "Insertion area (higher is better)"}
MARKER = 4  # points
NUMBER = "0.25"  # whose it is, its place says, or a line: some methods' colours are too faint for small digits
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
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + 0.12 * (top - bottom))  # room for the arrow above every interval
    arrow = {"arrowstyle": "->", "lw": 0.8, "color": "0.3"}
    axes.annotate("better", (0.01, 0.99), (0.1, 0.93), "axes fraction", arrowprops=arrow, color="0.3", va="center")
    _number(figure, axes, table, "deletion", "insertion")
    return figure


def time(table: pd.DataFrame, width: float) -> Figure:
    """Seconds an image's map takes (across, logarithmic) against both areas with their 95 % intervals.

    Cells without seconds, of maps made elsewhere, are left out. Arguments as of `scatter`.
    """
    timed = table[table["explain_seconds"] > 0]
    figure, both = _panels(timed, width, 2, 0.42 * width if width > 5 else 1.5 * width)
    for axes, kind in zip(both, KINDS, strict=True):
        _points(axes, timed, "explain_seconds", kind)
        axes.set_xscale("log")
        _ticks(axes)
        axes.set_xlabel("Seconds a map (explaining alone)")
        axes.set_ylabel(NAMES[kind])
    for axes, kind in zip(both, KINDS, strict=True):
        _number(figure, axes, timed, "explain_seconds", kind)
    return figure


def _ticks(axes: Axes) -> None:
    """Seconds as people write them: of decades, or between them too where they are few."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}" if high < 30 * low else "")
    if high < 30 * low:
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5, 7)))
        axes.tick_params(axis="x", which="both", length=3, pad=3)  # all on one line


def _panels(table: pd.DataFrame, width: float, count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Axes beside one another, or below one another in a single column, over a legend of the methods."""
    order = {label: place for place, label in enumerate(TITLES)}
    labels = sorted(set(_labels(table)), key=lambda label: (order.get(label, len(order)), label))
    columns = 3 if width > 5 else 2
    columns = 1 if max(len(title(label)) for label in labels) > 24 else columns
    notes = [line for note in footnotes(table["marks"]) for line in wrap(note, int(20 * width))]
    lines = -(-len(labels) // columns) + len(notes)
    figure = Figure((width, height + lines * HEIGHT_OF_LEGEND), layout="constrained")
    rows, across = (1, count) if width > 5 else (count, 1)
    panels = list(np.ravel(figure.subplots(rows, across, squeeze=False)))
    handles = [
        panels[0].plot([], [], linestyle="none", color=colour, marker=marker, markersize=MARKER, label=title(label))[0]
        for label, (colour, marker) in looks(labels).items()
    ]
    figure.legend(
        handles=handles,
        title="\n".join(notes),
        title_fontsize=6,
        loc="outside lower center",
        ncols=columns,
        handletextpad=0.1,
        columnspacing=1,
    )
    return figure, panels


def _points(axes: Axes, table: pd.DataFrame, across: str, up: str) -> None:
    look = looks(_labels(table))
    axes.margins(x=0.09)  # for numbers left of the leftmost points
    for label, (_, row) in zip(_labels(table), table.iterrows(), strict=True):
        colour, marker = look[label]
        at = [row[_column(kind)] for kind in (across, up)]
        bars = [None if kind == "explain_seconds" else _bar(row, kind) for kind in (across, up)]
        axes.errorbar(
            at[0], at[1], xerr=bars[0], yerr=bars[1], color=colour, marker=marker, markersize=MARKER, elinewidth=0.5
        )


def _number(figure: Figure, axes: Axes, table: pd.DataFrame, across: str, up: str) -> None:
    """Write each point's resolution beside it; the axes have to be as they will be drawn."""
    figure.draw_without_rendering()  # which gives the axes their place
    point = figure.dpi / 72

    def place(values: np.ndarray) -> np.ndarray:
        return np.asarray(axes.transData.transform(values)) / point

    rows = [row for _, row in table.iterrows()]
    texts = [f"{row['resolution']}{signs(row['marks'])}" for row in rows]
    found = spots(
        points=place(table[[_column(across), _column(up)]].to_numpy()),
        sizes=np.array([size_of(text) for text in texts]).reshape(-1, 2),
        ink=[_ink(row, across, up, place) for row in rows],
        texts=[grid(*text.get_window_extent().get_points() / point) for text in axes.texts],
        box=axes.bbox.get_points() / point,
    )
    look = looks(_labels(table))
    for label, row, text, spot in zip(_labels(table), rows, texts, found, strict=True):
        axes.annotate(
            text,
            (row[_column(across)], row[_column(up)]),
            spot.offset,
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": look[label][0], "shrinkB": 1} if spot.joined else None,
            fontsize=FONT,
            color=NUMBER,
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=1.2, foreground="white")],
            zorder=1,  # below points and bars, which the stroke would cut
        ).set_in_layout(False)


def _ink(row: pd.Series, across: str, up: str, place: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Points (m, 2) of a row's marker and bars, where `place` puts them."""
    at = np.array([row[_column(across)], row[_column(up)]])
    drawn = [place(at) + np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]) * MARKER / 2]
    for i, kind in enumerate((across, up)):
        bar = None if kind == "explain_seconds" else _bar(row, kind)
        if bar is not None:
            line = np.tile(at, (200, 1))
            line[:, i] += np.linspace(-bar[0, 0], bar[1, 0], 200)
            drawn.append(place(line))
    return np.concatenate(drawn)


def _column(kind: str) -> str:
    return kind if kind == "explain_seconds" else f"{kind}_auc"


def _bar(row: pd.Series, kind: str) -> np.ndarray | None:
    """Lengths (2, 1) below and above the mean of its interval; None where there is no interval."""
    mean, low, high = (row[f"{kind}_{end}"] for end in ("auc", "ci_low", "ci_high"))
    return None if pd.isna(low) else np.array([[mean - low], [high - mean]]).clip(min=0)


def _labels(table: pd.DataFrame) -> list[str]:
    return list((table["method"] + " " + table["variant"]).str.strip())
