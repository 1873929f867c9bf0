"""One image in several cells side by side: its heatmap in each, and below it its deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..explained import Explained
from ..layout import KINDS
from .pictures import COLOURS, about, head, heatmap, height_of, height_of_notes, notes, panel, pixels, show, write_notes
from .style import DELETION, INSERTION

LINES = dict(zip(KINDS, (DELETION, INSERTION), strict=True))

# Inches.
NARROWEST = 0.8  # column, for its curves to be read
EDGE, GAP = 0.04, 0.1
NAMES_LEFT, NAMES_BELOW = 0.42, 0.33  # of a curve's axes
AREAS = 0.22  # the areas above them


def curves(shown: Sequence[Explained], width: float) -> Figure:
    """The photograph over a legend, then a column a cell, in as many bands as the width asks for.

    Args:
        shown: The image in each of its cells.
        width: In inches.
    """
    room = width - 2 * EDGE - NAMES_LEFT
    bands = -(-len(shown) // max(1, int((room + GAP) / (NARROWEST + GAP)) - 1))
    across = -(-len(shown) // bands)
    inches = (room - (across - 1) * GAP) / (across + 1)
    high = min(0.8 * inches, 1.4)  # curves
    letters = int(18 * inches)
    heads = [about(shown[0], letters), *(head(one, letters) for one in shown)]
    top, below = height_of(heads), notes(shown, width)
    band = top + inches + AREAS + high + NAMES_BELOW
    figure = Figure((width, bands * band + height_of_notes(below)))

    photograph = panel(figure, EDGE, top, inches, inches)
    pixels_of = None if shown[0].photograph is None else pixels(shown[0].photograph)
    show(photograph, pixels_of, shown[0].troubles.get("photograph", ""))
    photograph.set_title(heads[0], fontsize=7)
    _legend(panel(figure, EDGE, top + inches + AREAS, inches, 0.3), panel(figure, EDGE, band - 0.49, inches, 0.09))
    for i, (one, text) in enumerate(zip(shown, heads[1:], strict=True)):
        left = EDGE + inches + NAMES_LEFT + (i % across) * (inches + GAP)
        upper = top + (i // across) * band
        picture = panel(figure, left, upper, inches, inches)
        show(picture, heatmap(one), one.troubles.get("heat", ""))
        picture.set_title(text, fontsize=7)
        _curves(panel(figure, left, upper + inches + AREAS, inches, high), one, is_first=i % across == 0)
    write_notes(figure, below)
    return figure


def _legend(lines: Axes, scale: Axes) -> None:
    """What the lines, the numbers above them and the colours mean."""
    lines.set_axis_off()
    lines.legend(
        handles=[Line2D([], [], color=colour, label=f"{kind.capitalize()}, area") for kind, colour in LINES.items()],
        loc="upper left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0,
        borderpad=0,
        handlelength=1,
        labelcolor="linecolor",
        fontsize=6,
    )
    scale.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=COLOURS)
    scale.set_xticks([0, 255], ["median", "top 1 %"], fontsize=6)
    scale.set_yticks([])
    scale.spines[:].set_visible(False)
    scale.tick_params(length=0, pad=2)
    scale.set_title("Evidence", fontsize=6, loc="left", pad=2)
    _within(scale)


def _curves(axes: Axes, one: Explained, *, is_first: bool) -> None:
    """Probability over the share of pixels; all have the same axes, and the first of a band their names."""
    axes.set(xlim=(0, 100), ylim=(0, 1))
    axes.set_xlabel("Pixels (%)", labelpad=1)
    axes.set_xticks([0, 50, 100])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if is_first else [""] * 3)
    axes.tick_params(labelsize=6, length=2, pad=2)
    _within(axes)
    if is_first:
        axes.set_ylabel("Probability", labelpad=2)
    if one.curve is None:
        axes.text(50, 0.5, "curves missing\nor damaged", fontsize=5.5, ha="center", va="center")
    for (kind, colour), side in zip(LINES.items(), ("left", "right"), strict=True):
        axes.set_title(f"{one.areas[kind]:.3f}", loc=side, color=colour, fontsize=6.5, pad=3)  # type: ignore[arg-type]
        if one.curve is not None:
            axes.plot(100 * one.curve.shares, getattr(one.curve, kind), color=colour, linewidth=1, clip_on=False)


def _within(axes: Axes) -> None:
    """Keep the outer labels from reaching beyond the axes, into those of the neighbours."""
    first, *_, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
