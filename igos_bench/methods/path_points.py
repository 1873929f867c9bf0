"""The points of the paths of many images, one image's after the other's, so that they fill micro-batches together."""

from __future__ import annotations

from collections.abc import Iterator


def by_image(rows: slice, steps: int) -> Iterator[tuple[int, slice, slice]]:
    """The images that rows of all images' path points are of: image, points of its path, places among the rows."""
    for b in range(rows.start // steps, -(-rows.stop // steps)):
        start, stop = max(rows.start, b * steps), min(rows.stop, (b + 1) * steps)
        yield b, slice(start - b * steps, stop - b * steps), slice(start - rows.start, stop - rows.start)
