"""Parts of figures of images: where they stand, photographs, heatmaps over them, and what is written about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from ..config import INPUT_SIZE
from ..explained import Explained
from ..layout import title
from ..marks import footnotes, signs
from ..perturb import upsample

# Even in lightness, and for the colour-blind, and bright on a grey photograph: inferno without its black.
COLOURS = ListedColormap(matplotlib.colormaps["inferno"](np.linspace(0.25, 1, 256)))
LINE = 0.125  # inches of a line of text in a title
PAD = 0.07  # inches between a title and its picture


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the figure's upper left corner."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def pixels(image: Tensor) -> np.ndarray:
    """An image (3, H, W) in [0, 1] as (H, W, 3) in whole numbers, rounded as the report's pictures are."""
    return image.mul(255).round().byte().permute(1, 2, 0).numpy()


def heatmap(one: Explained) -> np.ndarray | None:
    """The heat over the photograph in grey, (224, 224, 3) in [0, 1], or alone where that is missing; None without heat.

    Colours go from the map's median to its hottest hundredth, for signed maps too; the hotter, the more they cover.
    """
    if one.heat is None:
        return None
    # Fine maps have a few pixels far above all others: with colours up to these, nothing else would show.
    median, most = np.quantile(one.heat, (0.5, 0.99))
    shown = ((one.heat - median) / max(most - median, 1e-30)).clip(0, 1).astype(np.float32)
    heat = upsample(torch.from_numpy(shown)[None, None], INPUT_SIZE)[0, 0].numpy()[..., None]
    colours = np.asarray(COLOURS(heat[..., 0]))[..., :3]
    if one.photograph is None:
        return colours
    red, green, blue = one.photograph.numpy()
    grey = (0.299 * red + 0.587 * green + 0.114 * blue)[..., None]
    return np.asarray(grey + (colours - grey) * 0.85 * np.sqrt(heat))


def show(axes: Axes, picture: np.ndarray | None, missing: str = "") -> None:
    """Show a picture without axes, or say in its place why there is none: the beginning, without paths."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(picture is None)
    if picture is not None:
        axes.imshow(picture)
        return
    figure = axes.figure.get_figure(root=True)
    inches = axes.get_position().width * figure.get_size_inches()[0]
    axes.text(
        0.5,
        0.5,
        fill(re.split(", see |: ", missing)[0], int(22 * inches)),
        fontsize=5.5,
        ha="center",
        va="center",
        clip_on=True,
    )


def about(one: Explained, width: int) -> str:
    """The class that was explained and its probability on the photograph, and its label where that is another."""
    label = [fill(f"(label: {one.label})", width)] if one.label else []
    return "\n".join([said(one, one.probability, width), *label])


def said(one: Explained, probability: float, width: int) -> str:
    """The class that was explained and a probability of it, in lines of at most `width` letters."""
    return fill(f"{one.target}, {probability:.3f}", width)


def head(one: Explained, width: int) -> str:
    """Method and resolution, with the signs of its cell's marks, in lines of at most `width` letters."""
    cell = one.cell
    size = f"{cell.resolution} \N{MULTIPLICATION SIGN} {cell.resolution}"
    return f"{fill(title(cell.label), width)}\n{size}{signs(' '.join(cell.code))}"


def height_of(texts: Sequence[str]) -> float:
    """Inches that titles with these texts take, which stand side by side."""
    return PAD + LINE * max(text.count("\n") + 1 for text in texts)


def notes(shown: Sequence[Explained], width: float) -> str:
    """What the signs in heads mean, in lines for a figure of so many inches; empty where there are none."""
    return "\n".join(fill(note, int(22 * width)) for note in footnotes(" ".join(one.cell.code) for one in shown))


def write_notes(figure: Figure, text: str) -> None:
    """Write them at the figure's lower edge."""
    if text:
        figure.text(0.5, 0.02 / figure.get_size_inches()[1], text, fontsize=6, ha="center", va="bottom")


def height_of_notes(text: str) -> float:
    """Inches that they take."""
    return 0.11 * (text.count("\n") + 1) + 0.05 if text else 0.0
