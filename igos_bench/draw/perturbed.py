"""What the metric looked at: an image, its heatmap, and the image with its hottest pixels deleted, or they alone."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ..explained import Explained
from ..layout import KINDS
from .curves import LINES
from .pictures import about, head, heatmap, notes, pixels, show, tight

WORDS = {"deletion": "deleted", "insertion": "inserted"}


def perturbed(shown: Sequence[Explained], steps: Sequence[int], width: float) -> Figure:
    """A row a cell: photograph, heatmap, deletion and insertion image at one step, with what the network said to each.

    Args:
        shown: The image in each of its cells, with all that pictures need.
        steps: Of the curves, one a cell.
        width: In inches.
    """
    inches = width / 4
    figure = Figure((width, len(shown) * (inches + 0.3)), layout=tight())
    rows = figure.subplots(len(shown), 4, squeeze=False)
    size = 7 if width >= 5 else 5.5
    for one, step, (photograph, heat, *pair) in zip(shown, steps, rows, strict=True):
        assert one.photograph is not None and one.curve is not None
        show(photograph, pixels(one.photograph), "")
        photograph.set_title(about(one), fontsize=size)
        show(heat, heatmap(one), "")
        heat.set_title(head(one, int(20 * inches)), fontsize=size)
        for axes, kind in zip(pair, KINDS, strict=True):
            show(axes, pixels(one.perturbed(kind, step)), "")
            said = (
                f"{percent(one.curve.shares[step])} {WORDS[kind]}\n{one.target}, {getattr(one.curve, kind)[step]:.3f}"
            )
            axes.set_title(said, fontsize=size, color=LINES[kind])
    if below := notes(shown, width):
        figure.supxlabel(below, fontsize=6)
    return figure


def percent(share: float) -> str:
    """Such as `6.38 %`."""
    return f"{100 * share:.3g} %" if share < 0.9995 else "100 %"
