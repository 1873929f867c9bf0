"""Parts of figures of images: photographs, heatmaps over them, and what is written about them."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from ..explained import Explained
from ..layout import title
from ..marks import footnotes, signs

OPACITY = 0.75
"""Of the hottest element; the colder, the less it covers, as in the report."""
COLOURS = "viridis"  # even in lightness, and for the colour-blind


def tight() -> ConstrainedLayoutEngine:
    """Panels with little between them."""
    return ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)


def pixels(image: Tensor) -> np.ndarray:
    """An image (3, H, W) in [0, 1] as (H, W, 3) in whole numbers, rounded as the report's pictures are."""
    return image.mul(255).round().byte().permute(1, 2, 0).numpy()


def heatmap(one: Explained) -> np.ndarray | None:
    """The heat over the photograph, (224, 224, 3) in [0, 1], or alone where that is missing; None without heat."""
    heat = one.upsampled_heat()
    if heat is None:
        return None
    colours = np.asarray(matplotlib.colormaps[COLOURS](heat))[..., :3]
    if one.photograph is None:
        return colours
    share = OPACITY ** (4 - 3 * heat[..., None])
    photograph = one.photograph.permute(1, 2, 0).numpy()  # (3, H, W) -> (H, W, 3)
    return np.asarray(photograph + (colours - photograph) * share)


def show(axes: Axes, picture: np.ndarray | None, missing: str) -> None:
    """Show a picture without axes, or say in its place why there is none."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(picture is None)
    axes.set_aspect("equal")
    if picture is not None:
        axes.imshow(picture)
        return
    axes.set(xlim=(0, 1), ylim=(0, 1))
    inches = axes.figure.get_figure(root=True).get_size_inches()[0] / max(1, _columns(axes))
    axes.text(0.5, 0.5, fill(missing, max(10, int(16 * inches))), fontsize=5.5, ha="center", va="center")


def about(one: Explained) -> str:
    """The class that was explained and its probability on the photograph, and its label where that is another."""
    label = f"\n(label: {one.label})" if one.label else ""
    return f"{one.target}, {one.probability:.3f}{label}"


def head(one: Explained, width: int) -> str:
    """Method and resolution, with the signs of its cell's marks, in lines of at most `width` letters."""
    cell = one.cell
    size = f"{cell.resolution} \N{MULTIPLICATION SIGN} {cell.resolution}"
    return f"{fill(title(cell.label), width)}\n{size}{signs(' '.join(cell.code))}"


def notes(shown: Sequence[Explained], width: float) -> str:
    """What the signs in heads mean, in lines for a figure of so many inches; empty where there are none."""
    return "\n".join(fill(note, int(22 * width)) for note in footnotes(" ".join(one.cell.code) for one in shown))


def _columns(axes: Axes) -> int:
    place = axes.get_subplotspec()
    return place.get_gridspec().ncols if place else 1
