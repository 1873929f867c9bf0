"""Images of noise, all different, for tests to which it does not matter what they show."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def write_noise(folder: Path, names: Iterable[str]) -> None:
    """Make the folder, and in it images of 40 x 40, the same ones each time."""
    folder.mkdir()
    draws = np.random.default_rng(0)
    for name in names:
        Image.fromarray(draws.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / name)
