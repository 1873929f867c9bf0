"""The command `figure`: from what is asked for to its two files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .atomic import write_atomically
from .cells import GROUP, Cell
from .chosen import at_resolution, of_runs, with_areas, with_image
from .errors import UserError, tell
from .figure_words import OF_IMAGES, RESOLUTION, Asked, read_figure
from .layout import title
from .results import short_key
from .table import make_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .explained import Explained

OF_PHOTOGRAPH = ("photograph", "baselines")
"""What of an image is the same in all its cells."""


def draw(words: Sequence[str]) -> list[Path]:
    """Draw what the words ask for into results_dir/figures, as PNG and PDF.

    Raises:
        UserError: A word is mistyped; there is nothing to draw, or more than one figure's worth; no matplotlib.
    """
    asked = read_figure(words)
    needs_matplotlib()
    from .draw.style import saved, style

    with style():
        if asked.kind in OF_IMAGES:
            shown = _shown(asked)
            figure = _of_image(asked, shown)
            asked = named_by(asked, [one.cell for one in shown])
        else:
            figure = _of_areas(asked)
        contents = {kind: saved(figure, kind, asked.dpi) for kind in ("png", "pdf")}
    paths = [Path(asked.results_dir) / "figures" / f"{name_of(asked)}.{kind}" for kind in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomically(path, content)
    return paths


def needs_matplotlib() -> None:
    """Raise UserError where it is not installed."""
    if find_spec("matplotlib") is None:
        raise UserError("figures are drawn by matplotlib, which is not installed: pip install igos-bench[report]")


def named_by(asked: Asked, cells: Sequence[Cell]) -> Asked:
    """The same, with the resolution of what was drawn; of several the one that was asked for, if any was."""
    drawn = {cell.resolution for cell in cells}
    return replace(asked, resolution=drawn.pop()) if len(drawn) == 1 else asked


def name_of(asked: Asked) -> str:
    """Of the files: the kind, and what was said of image and cells, as far as a file's name can have it."""
    methods = [asked.method] if asked.kind in ("resolutions", "film") else asked.methods
    parts = [asked.kind, _in_a_name(asked.image), _in_a_name("+".join(methods or []))]
    if asked.kind in ("curves", "perturbed", "film") and asked.resolution:
        parts.append(str(asked.resolution))
    if asked.kind == "perturbed":
        parts.append(f"{asked.fraction:g}")
    said = [*((key, getattr(asked, key)) for key in GROUP), ("run", "+".join(asked.run))]
    parts += [_in_a_name(f"{key}_{value}") for key, value in said if value]
    return _short("-".join(filter(None, parts)), 200)


def _in_a_name(text: str) -> str:
    """The same where a file's name can have it; else as much of it as can be, and a hash."""
    kept = re.sub(r"[^A-Za-z0-9._+-]+", "_", text)
    return _short(kept, 80) if kept == text else f"{kept[:80]}-{_hash(text)}"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}-{_hash(text)}"


def _hash(text: str) -> str:
    return short_key({"text": text})[:6]


def _of_areas(asked: Asked) -> Figure:
    from .draw import areas

    table = make_table(with_areas(asked))
    if asked.kind == "time" and not (table["explain_seconds"] > 0).any():
        raise UserError("no cell has seconds: their maps were made elsewhere; kind=scatter draws their areas")
    return {"scatter": areas.scatter, "time": areas.time}[asked.kind](table, asked.width)


def _shown(asked: Asked) -> list[Explained]:
    """The image in the cells that were asked for, as far as they have enough of it to be drawn; tells of the others.

    Raises:
        UserError: None of them has.
    """
    from .explained import explained

    cells = with_image(asked)
    if asked.run:
        cells = of_runs(cells, asked)
    elif asked.kind != "resolutions":
        cells = at_resolution(cells, asked.resolution or RESOLUTION)
    shown: list[Explained] = []
    for cell in cells:
        if asked.image in cell.rows.index:
            shown.append(explained(cell, asked.image))
        else:
            why = cell.failures.get(asked.image, f"it is not among its {cell.n:,} images that are done")
            tell(f"{_where(cell)} is left out, which has nothing of {asked.image}: {why}")
    if not shown:
        raise UserError(f"none of the cells that were asked for has {asked.image} done: there is nothing to draw")
    return _complete_ones(shown) if asked.kind == "perturbed" else shown


def _complete_ones(shown: Sequence[Explained]) -> list[Explained]:
    """Those of which pictures can be composed; tells of the others, or raises UserError where there are no more."""
    lacking: dict[str, list[str]] = {}
    for one in shown:
        if one.troubles:
            lacking.setdefault(next(iter(one.troubles.values())), []).append(_where(one.cell))
    if not (found := [one for one in shown if not one.troubles]):
        reasons = "; ".join(f"{' and '.join(whose)}: {why}" for why, whose in lacking.items())
        raise UserError(f"no picture of {shown[0].image_id} can be composed: {reasons}")
    for why, whose in lacking.items():
        tell(f"{' and '.join(whose)} {'are' if len(whose) > 1 else 'is'} left out: {why}")
    return found


def _of_image(asked: Asked, shown: Sequence[Explained]) -> Figure:
    from .draw import curves

    if asked.kind == "perturbed":
        return _perturbed(asked, shown)
    troubles = {
        why: asked.image if what in OF_PHOTOGRAPH else _where(one.cell)
        for one in shown
        for what, why in one.troubles.items()
    }
    for why, whose in troubles.items():
        tell(f"{whose}: {why}")
    return curves.curves(shown, asked.width)


def _perturbed(asked: Asked, shown: Sequence[Explained]) -> Figure:
    from .draw.perturbed import perturbed

    steps = [one.nearest_step(asked.fraction) for one in shown]
    for one, step in zip(shown, steps, strict=True):
        share = one.curve.shares[step] if one.curve else 0
        if abs(share - asked.fraction) > 0.0005:
            tell(
                f"{_where(one.cell)}: no step of the metric is at {asked.fraction:g}; "
                f"the nearest, {share:.4f}, is shown"
            )
    return perturbed(shown, steps, asked.width)


def complete(one: Explained) -> Explained:
    """The same; raises UserError where a picture of it cannot be composed."""
    for trouble in one.troubles.values():
        raise UserError(f"{one.image_id}, {_where(one.cell)}: {trouble}")
    return one


def _where(cell: Cell) -> str:
    return f"{title(cell.label)} at {cell.resolution}"
