"""What the metric looked at: an image, its heatmap, and the image with its hottest pixels deleted, or they alone."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ..explained import Explained
from ..layout import KINDS
from .curves import EDGE, LINES
from .pictures import about, head, heatmap, height_of, height_of_notes, notes, panel, pixels, said, show, write_notes

WORDS = {"deletion": "deleted", "insertion": "inserted"}


def perturbed(shown: Sequence[Explained], steps: Sequence[int], width: float) -> Figure:
    """A row a cell: photograph, heatmap, deletion and insertion image at one step, with what the network said to each.

    Args:
        shown: The image in each of its cells, with all that pictures need.
        steps: Of the curves, one a cell.
        width: In inches.
    """
    inches = (width - 5 * EDGE) / 4
    letters = int((17 if width > 5 else 22) * inches)
    heads = [
        [about(one, letters), head(one, letters), *(_perturbed(one, kind, step, letters) for kind in KINDS)]
        for one, step in zip(shown, steps, strict=True)
    ]
    heights = [height_of(texts) for texts in heads]
    below = notes(shown, width)
    figure = Figure((width, sum(heights) + len(shown) * (inches + EDGE) + height_of_notes(below)))
    top = 0.0
    for one, step, texts, height in zip(shown, steps, heads, heights, strict=True):
        assert one.photograph is not None
        pictures = [pixels(one.photograph), heatmap(one), *(pixels(one.perturbed(kind, step)) for kind in KINDS)]
        for i, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            axes = panel(figure, EDGE + i * (inches + EDGE), top + height, inches, inches)
            show(axes, picture)
            colour = "black" if i < 2 else LINES[KINDS[i - 2]]
            axes.set_title(text, fontsize=7 if width > 5 else 5.5, color=colour, pad=3)
        top += height + inches + EDGE
    write_notes(figure, below)
    return figure


def percent(share: float) -> str:
    """Such as `6.38 %`."""
    return f"{100 * share:.3g} %" if share < 0.9995 else "100 %"


def _perturbed(one: Explained, kind: str, step: int, letters: int) -> str:
    assert one.curve is not None
    share, probability = one.curve.shares[step], getattr(one.curve, kind)[step]
    return f"{percent(share)} {WORDS[kind]}\n{said(one, probability, letters)}"
