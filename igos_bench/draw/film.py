"""The film of a deletion and an insertion: pictures of both at one step after the other, over the curves' points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..config import INPUT_SIZE
from ..explained import Explained
from ..layout import KINDS
from .curves import LINES
from .perturbed import WORDS, percent
from .pictures import about, head, panel, pixels, show

DPI = 100
# Pixels. Pictures stand at their own size, so that nothing is blurred between the metric's pixels and the screen's.
EDGE, TOP, HEIGHT = 16, 64, 528
LEFTS = dict(zip(KINDS, (EDGE, 2 * EDGE + INPUT_SIZE), strict=True))
WIDTH = 3 * EDGE + 2 * INPUT_SIZE
PHOTOGRAPHS = slice(TOP, TOP + INPUT_SIZE)
"""The rows of a frame that they are in."""
COLUMNS = [slice(left, left + INPUT_SIZE) for left in LEFTS.values()]


def film(one: Explained, steps: Sequence[int]) -> Iterator[np.ndarray]:
    """Frames (HEIGHT, WIDTH, 3) of 8-bit RGB, one a step: deletion on the left, insertion on the right, curves below.

    Args:
        one: The image in its cell, with all that pictures need.
        steps: Of the curves.
    """
    assert one.curve is not None
    figure = Figure((WIDTH / DPI, HEIGHT / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    name = head(one, 60).replace("\n", ", ")
    lines = f"{name}\n{about(one, 60).replace(chr(10), ' ')}"
    figure.text(0.5, 1 - 6 / HEIGHT, lines, ha="center", va="top", fontsize=8)
    pictures, titles = {}, {}
    for kind, left in LEFTS.items():
        axes = panel(figure, left / DPI, TOP / DPI, INPUT_SIZE / DPI, INPUT_SIZE / DPI)
        show(axes, pixels(one.perturbed(kind, steps[0])))
        pictures[kind] = axes.images[0]
        titles[kind] = axes.set_title("", fontsize=8, color=LINES[kind], pad=4)
    axes = panel(figure, 0.5, (TOP + INPUT_SIZE + 22) / DPI, WIDTH / DPI - 0.7, 1.72)
    axes.set(xlim=(0, 100), ylim=(0, 1), xlabel="Pixels deleted or inserted (%)", ylabel="Probability")
    axes.tick_params(labelsize=7)
    points = {}
    for kind, colour in LINES.items():
        label = f"{kind.capitalize()}, area {one.areas[kind]:.3f}"
        axes.plot(100 * one.curve.shares, getattr(one.curve, kind), color=colour, linewidth=1.2, label=label)
        (points[kind],) = axes.plot([], [], "o", color=colour, markersize=6, clip_on=False, zorder=3)
    here = axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0, fontsize=7)
    for step in steps:
        share = one.curve.shares[step]
        for kind in KINDS:
            probability = getattr(one.curve, kind)[step]
            pictures[kind].set_data(pixels(one.perturbed(kind, step)))
            titles[kind].set_text(f"{percent(share)} {WORDS[kind]}, {probability:.3f}")
            points[kind].set_data([100 * share], [probability])
        here.set_xdata([100 * share] * 2)
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()
