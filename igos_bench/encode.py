"""Frames of a film as the bytes of a file."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from .errors import UserError, first_line

FRAME = 100
FIRST, LAST = 800, 2000
"""Milliseconds that a frame stays, and those at the ends."""
NOISE = 12.0
"""Of a GIF, in steps of its 8 bits: below it the bands of a blur are seen, above it the noise."""


def gif(frames: Sequence[np.ndarray], photographs: slice, columns: Sequence[slice]) -> bytes:
    """An endless GIF, the same bytes for the same frames.

    All frames have one palette, and the noise that hides its few colours lies still: a pixel that rests costs nothing.

    Args:
        frames: (H, W, 3), 8-bit RGB.
        photographs: The rows in which they have photographs; the rest is drawn, in few colours.
        columns: Those of each photograph.
    """
    palette, noise = _palette(frames, photographs), _noise(frames[0].shape, photographs, columns)
    images = []
    for frame in frames:
        noisy = (frame + noise).round().clip(0, 255).astype(np.uint8)
        images.append(Image.fromarray(noisy).quantize(palette=palette, dither=Image.Dither.NONE))
    durations = [FIRST, *[FRAME] * (len(frames) - 2), LAST]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True)
    return buffer.getvalue()


def _palette(frames: Sequence[np.ndarray], photographs: slice) -> Image.Image:
    """At most 255 colours, most of them the photographs'; Pillow needs one more for pixels that rest."""
    some = np.concatenate([frames[place] for place in np.linspace(0, len(frames) - 1, 5).round().astype(int)], axis=1)
    others = np.concatenate([some[: photographs.start], some[photographs.stop :]])
    colours: list[int] = [255, 255, 255]
    for pixels, count in ((some[photographs], 230), (others, 24)):
        found = np.array(Image.fromarray(pixels).quantize(count, Image.Quantize.MEDIANCUT).getpalette()).reshape(-1, 3)
        colours += found[found.min(axis=1) < 248].flatten().tolist()  # nothing but white for the ground
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    return palette


def _noise(shape: Sequence[int], photographs: slice, columns: Sequence[slice]) -> np.ndarray:
    """A checkered pattern (H, W, 1) after Bayer where photographs are, of a few grey levels, and nothing elsewhere."""
    pattern = np.zeros((1, 1))
    for _ in range(3):
        pattern = np.block([[4 * pattern, 4 * pattern + 2], [4 * pattern + 3, 4 * pattern + 1]])
    noise = np.zeros((shape[0], shape[1], 1))
    for place in columns:
        height, width = noise[photographs, place].shape[:2]
        tiled = np.tile(pattern / 64 - 0.5, (-(-height // 8), -(-width // 8)))
        noise[photographs, place, 0] = tiled[:height, :width] * NOISE
    return noise


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
