"""The command `animate`: the film of the deletion and the insertion of one image, as GIF or MP4."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from .atomic import write_atomically
from .chosen import one_run, with_image
from .errors import UserError, first_line
from .explained import explained
from .figure import complete, name_of, needs_matplotlib
from .figure_words import read_film

FRAME = 100
FIRST, LAST = 800, 2000
"""Milliseconds that a frame stays, and those at the ends."""


def animate(words: Sequence[str]) -> Path:
    """Write the film that the words ask for into results_dir/figures.

    Raises:
        UserError: A word is mistyped; no run, or several, have the image; something of it is missing; no matplotlib, or
            no ffmpeg for an MP4.
    """
    asked = read_film(words)
    needs_matplotlib()
    encode = {"gif": gif, "mp4": mp4}[asked.format]
    if encode is mp4 and shutil.which("ffmpeg") is None:
        raise UserError("format=mp4 is written by ffmpeg, which is not installed: install it, or say format=gif")
    cell = one_run(with_image(asked), asked)
    if asked.image not in cell.rows.index:
        why = cell.failures.get(asked.image, f"it is not among its {cell.n:,} images that are done")
        raise UserError(f"{cell.label} at {cell.resolution} has nothing of {asked.image}: {why}")
    one = complete(explained(cell, asked.image))
    assert one.curve is not None
    from .draw.film import film
    from .draw.style import style

    steps = np.unique(np.linspace(0, len(one.curve.hits) - 1, asked.frames).round().astype(int))
    with style():
        frames = list(film(one, steps.tolist()))
    path = Path(asked.results_dir) / "figures" / f"{name_of(asked)}.{asked.format}"
    write_atomically(path, encode(frames))
    return path


def gif(frames: Sequence[np.ndarray]) -> bytes:
    """Frames (H, W, 3) as an endless GIF, all in one palette and without dither, so that what rests costs nothing."""
    chosen = [frames[place] for place in np.linspace(0, len(frames) - 1, 5).round().astype(int)]
    palette = Image.fromarray(np.concatenate(chosen)).quantize(256, Image.Quantize.MEDIANCUT)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [FIRST, *[FRAME] * (len(frames) - 2), LAST]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False)
    return buffer.getvalue()


def mp4(frames: Sequence[np.ndarray]) -> bytes:
    """Frames (H, W, 3), of even height and width, as H.264; raises UserError where ffmpeg cannot."""
    shown = [frames[0]] * (FIRST // FRAME) + list(frames[1:-1]) + [frames[-1]] * (LAST // FRAME)
    height, width = frames[0].shape[:2]
    with TemporaryDirectory() as folder:  # its container is completed by going back to its beginning: no pipe can
        path = Path(folder) / "film.mp4"
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(1000 // FRAME), "-i", "-"]
        target = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-movflags", "+faststart", str(path)]
        command = ["ffmpeg", "-loglevel", "error", *source, *target]
        ended = subprocess.run(command, input=b"".join(map(bytes, shown)), capture_output=True, check=False)
        if ended.returncode:
            why = first_line(Exception(ended.stderr.decode(errors="replace")))
            raise UserError(f"ffmpeg cannot write the film ({why}): say format=gif")
        return path.read_bytes()
