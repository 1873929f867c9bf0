"""The file of an image, which the page loads when the image comes into view.

It is a script, because a page that is opened from a disk may load scripts beside it, and no other data. It calls
`sideFile(build, number, {...})` with numbers, a hash and base64 alone: no text of a user's is in it.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..explained import steps_and_heat
from ..perturb import Baseline
from ..stored import Curve

QUALITY = 88
"""Of JPEG; a photograph of 224 x 224 takes some 12 kB."""

MOST_STEPS = 255
"""Steps that the page shows, which has a byte for them."""

CURVE_UNIT = 1e-4
HEAT_UNIT = 1e-3


def side_file(build: str, number: int, content: Mapping[str, Any]) -> bytes:
    """The script that hands an image's content to the page of this build; any other page refuses it."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return f'sideFile("{build}",{number},{text})\n'.encode()


def photograph_content(image: Tensor, baselines: Mapping[int, Baseline]) -> dict[str, Any]:
    """The photograph and what is shown where it is deleted, as JPEGs in base64."""
    return {
        "photograph": _jpeg(image),
        "baselines": {number: _jpeg(baseline(image[None])[0]) for number, baseline in baselines.items()},
    }


def cell_content(saliency_map: np.ndarray | None, curve: Curve | None, ranking: str) -> dict[str, Any]:
    """What one cell has of an image: its curves, and its map as the step at which each element is hit.

    A byte an element has both its place in the order and its colour, see `steps_and_heat`.

    Args:
        saliency_map: (r, r), or None where it is missing.
        curve: The curves, or None where they are missing; of more than 255 steps, evenly chosen ones are shown.
        ranking: Of the protocol: `elements`, or `pixels`, which ranks the upsampled map.

    Returns:
        `curves`: deletion and insertion in 1/10,000; `side`, `steps` (deflated, base64) and `heat` (of steps 1 to n).
        Where something is not there, `lacks`: `map`, `curves`, or `match` where the map is not that of the curves.
    """
    content: dict[str, Any] = {}
    lacks = ["map"] * (saliency_map is None) + ["curves"] * (curve is None)
    if curve is not None:
        curve = thinned(curve)
        content["curves"] = [_in_units(values, CURVE_UNIT) for values in (curve.deletion, curve.insertion)]
    found = None if saliency_map is None or curve is None else steps_and_heat(saliency_map, curve.hits, ranking)
    if found is None:
        return {**content, "lacks": lacks or ["match"]}
    steps, heat = found
    packed = zlib.compress(steps.astype(np.uint8).tobytes(), 6)
    return {**content, "side": len(steps), "steps": _base64(packed), "heat": _in_units(heat, HEAT_UNIT)}


def thinned(curve: Curve) -> Curve:
    """A curve with the points that the page shows: all, or 256 evenly chosen ones with both ends."""
    points = len(curve.hits)
    shown = np.unique(np.linspace(0, points - 1, min(points, MOST_STEPS + 1)).round().astype(int))
    return Curve(curve.hits[shown], curve.deletion[shown], curve.insertion[shown])


def _in_units(values: np.ndarray, unit: float) -> list[int | None]:
    rounded = np.round(np.asarray(values, dtype=float) / unit)
    return [int(value) if np.isfinite(value) else None for value in rounded]


def _jpeg(image: Tensor) -> str:
    pixels = image.mul(255).round().byte().permute(1, 2, 0).numpy()  # (3, H, W) -> (H, W, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return _base64(buffer.getvalue())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
