"""The command `animate`: the film of the deletion and the insertion of one image, as GIF or MP4."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .atomic import write_atomically
from .chosen import one_run, with_image
from .encode import gif, mp4
from .errors import UserError
from .explained import explained
from .figure import complete, name_of, named_by, needs_matplotlib
from .figure_words import read_film


def animate(words: Sequence[str]) -> Path:
    """Write the film that the words ask for into results_dir/figures.

    Raises:
        UserError: A word is mistyped; no run, or several, have the image; something of it is missing; no matplotlib, or
            no ffmpeg for an MP4.
    """
    asked = read_film(words)
    needs_matplotlib()
    if asked.format == "mp4" and shutil.which("ffmpeg") is None:
        raise UserError("format=mp4 is written by ffmpeg, which is not installed: install it, or say format=gif")
    cell = one_run(with_image(asked), asked)
    if asked.image not in cell.rows.index:
        why = cell.failures.get(asked.image, f"it is not among its {cell.n:,} images that are done")
        raise UserError(f"{cell.label} at {cell.resolution} has nothing of {asked.image}: {why}")
    one = complete(explained(cell, asked.image))
    assert one.curve is not None
    from .draw.film import COLUMNS, PHOTOGRAPHS, film
    from .draw.style import style

    steps = np.unique(np.linspace(0, len(one.curve.hits) - 1, asked.frames).round().astype(int))
    with style():
        frames = list(film(one, steps.tolist()))
    path = Path(asked.results_dir) / "figures" / f"{name_of(named_by(asked, [cell]))}.{asked.format}"
    write_atomically(path, gif(frames, PHOTOGRAPHS, COLUMNS) if asked.format == "gif" else mp4(frames))
    return path
