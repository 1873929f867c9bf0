"""One image in several cells side by side: its heatmap in each, and below it its deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..explained import Explained
from ..layout import KINDS
from .pictures import COLOURS, about, head, heatmap, notes, pixels, show, tight
from .style import DELETION, INSERTION

NARROWEST = 0.95  # inches of a column, for its curves to be read
LINES = dict(zip(KINDS, (DELETION, INSERTION), strict=True))


def curves(shown: Sequence[Explained], width: float) -> Figure:
    """The photograph over a legend, then a column a cell, in as many bands as the width asks for.

    Args:
        shown: The image in each of its cells.
        width: In inches.
    """
    count = len(shown) + 1
    bands = -(-count // max(2, int(width // NARROWEST)))
    across = -(-count // bands)
    inches = width / across
    figure = Figure((width, bands * (1.9 * inches + 0.65)), layout=tight())
    panels = figure.subplots(2 * bands, across, squeeze=False, height_ratios=[1, 0.85] * bands)
    pairs = [
        (panels[2 * (i // across), i % across], panels[2 * (i // across) + 1, i % across])
        for i in range(bands * across)
    ]
    for pair in pairs[count:]:
        for axes in pair:
            axes.set_axis_off()
    _photograph(*pairs[0], shown[0])
    for i, (one, (above, below)) in enumerate(zip(shown, pairs[1:], strict=False), 1):
        show(above, heatmap(one), one.troubles.get("heat", ""))
        above.set_title(head(one, max(8, int(18 * inches))), fontsize=7)
        _curves(below, one, is_first=i == 1 or i % across == 0)
    if below := notes(shown, width):
        figure.supxlabel(below, fontsize=6)
    return figure


def _photograph(above: Axes, below: Axes, one: Explained) -> None:
    """The photograph with its class, and below it what the lines, numbers and colours of the others mean."""
    show(above, None if one.photograph is None else pixels(one.photograph), one.troubles.get("photograph", ""))
    above.set_title(about(one), fontsize=7)
    below.set_axis_off()
    lines = [Line2D([], [], color=colour, label=f"{kind.capitalize()}, area") for kind, colour in LINES.items()]
    below.legend(
        handles=lines,
        loc="upper left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0,
        borderpad=0,
        handlelength=1,
        labelcolor="linecolor",
    )
    scale = below.inset_axes((0, 0.3, 1, 0.1))
    scale.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=COLOURS)
    scale.set_xticks([0, 255], ["least", "most"])
    low, high = scale.get_xticklabels()
    low.set_horizontalalignment("left")
    high.set_horizontalalignment("right")
    scale.set_yticks([])
    scale.spines[:].set_visible(False)
    scale.tick_params(length=0, pad=2, labelsize=6)
    scale.set_title("Evidence", fontsize=6.5, loc="left", pad=2)


def _curves(axes: Axes, one: Explained, *, is_first: bool) -> None:
    """Probability over the share of pixels; all have the same axes, and the first of a band their names."""
    axes.set(xlim=(0, 100), ylim=(0, 1), xlabel="Pixels (%)")
    axes.set_xticks([0, 50, 100])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if is_first else [])
    axes.tick_params(labelsize=6, length=2)
    if is_first:
        axes.set_ylabel("Probability")
    if one.curve is None:
        axes.text(50, 0.5, "curves\nmissing", fontsize=5.5, ha="center", va="center")
    for (kind, colour), side in zip(LINES.items(), ("left", "right"), strict=True):
        axes.set_title(f"{one.areas[kind]:.3f}", loc=side, color=colour, fontsize=6.5, pad=3)  # type: ignore[arg-type]
        if one.curve is not None:
            axes.plot(100 * one.curve.shares, getattr(one.curve, kind), color=colour, linewidth=1, clip_on=False)
