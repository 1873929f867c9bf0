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

from ..explained import heat_of, hits_of, ranked_of, steps_of
from ..perturb import Baseline
from ..stored import Curve

QUALITY = 88
"""Of JPEG; a photograph of 224 x 224 takes some 12 kB."""

MOST_STEPS = 255
"""Steps that the page shows, which has a byte for them; where the metric has fewer, the byte has levels within them."""

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


def cell_content(saliency_map: np.ndarray | None, curve: Curve | None, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What one cell has of an image: its curves, and its map as the level at which each element is hit.

    A byte an element has its step, its place in the order and its colour: a step of the metric is a level, or where the
    metric has few, several.

    Args:
        saliency_map: (r, r), or None where it is missing.
        curve: The curves, or None where they are missing; of more than 255 steps, evenly chosen ones are shown.
        protocol: What its file says, for the ranking, and for the steps where there are no curves.

    Returns:
        `curves`: deletion and insertion in 1/10,000; `side`, `levels` (from 1; deflated, base64), `levels_a_step`, and
        `heat`, of each level the mean of its elements. Where something is not there, `lacks`: `map`, `curves`, or
        `match` where the map is not that of the curves.
    """
    content: dict[str, Any] = {}
    lacks = ["map"] * (saliency_map is None) + ["curves"] * (curve is None)
    if curve is not None:
        curve = thinned(curve)
        content["curves"] = [_in_units(values, CURVE_UNIT) for values in (curve.deletion, curve.insertion)]
    if saliency_map is not None:
        ranked = ranked_of(saliency_map, protocol)
        hits = thinned_hits(hits_of(protocol, ranked.numel())) if curve is None else curve.hits
        levels_a_step = max(1, MOST_STEPS // max(1, len(hits) - 1))
        levels = steps_of(ranked, refined(hits, levels_a_step))
        if levels is None:
            return {**content, "lacks": ["match"]}
        content |= {
            "side": len(levels),
            "levels": _base64(zlib.compress(levels.astype(np.uint8).tobytes(), 6)),
            "levels_a_step": levels_a_step,
            "heat": _in_units(_means(heat_of(ranked), levels), HEAT_UNIT),
        }
    return {**content, "lacks": lacks} if lacks else content


def thinned(curve: Curve) -> Curve:
    """A curve with the points that the page shows: all, or 256 evenly chosen ones with both ends."""
    shown = _shown(len(curve.hits))
    return Curve(curve.hits[shown], curve.deletion[shown], curve.insertion[shown])


def thinned_hits(hits: np.ndarray) -> np.ndarray:
    """The same of `hits` alone."""
    return np.asarray(hits[_shown(len(hits))])


def refined(hits: np.ndarray, parts: int) -> np.ndarray:
    """(n + 1,) as (n * parts + 1,): the hits of each step in so many parts, as even as whole numbers allow."""
    places = np.arange(len(hits))
    return np.asarray(np.interp(np.arange(places[-1] * parts + 1) / parts, places, hits).round().astype(int))


def _shown(points: int) -> np.ndarray:
    return np.unique(np.linspace(0, points - 1, min(points, MOST_STEPS + 1)).round().astype(int))


def _means(heat: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Of the heat at each level from 1 on; 0 at those that have no element."""
    counts, sums = (np.bincount(levels.ravel(), weights)[1:] for weights in (None, heat.ravel()))
    return np.asarray(sums / np.maximum(counts, 1))


def _in_units(values: np.ndarray, unit: float) -> list[int | None]:
    rounded = np.round(np.asarray(values, dtype=float) / unit)
    if np.isfinite(rounded).all():  # as nearly always, and ten times faster
        found: list[int | None] = rounded.astype(int).tolist()
        return found
    return [int(value) if np.isfinite(value) else None for value in rounded]


def _jpeg(image: Tensor) -> str:
    pixels = image.mul(255).round().byte().permute(1, 2, 0).numpy()  # (3, H, W) -> (H, W, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return _base64(buffer.getvalue())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
