"""The file of an image, which the page loads when the image comes into view.

It is a script, because a page that is opened from a disk may load scripts beside it, and no other data. It calls
`sideFile(number, {...})` with numbers and base64 alone: no text of a user's is in it.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..config import INPUT_SIZE, Preprocessing
from ..errors import ImageError, UserError
from ..images import decode, preprocess
from ..metrics import rank
from ..perturb import Baseline, upsample
from ..source import ImageSource
from .stored import Curve

QUALITY = 88
"""Of JPEG; a photograph of 224 x 224 takes some 12 kB."""

CURVE_UNIT = 1e-4
HEAT_UNIT = 1e-3


def side_file(number: int, content: Mapping[str, Any]) -> bytes:
    """The script that hands an image's content to the page."""
    return f"sideFile({number},{json.dumps(content, separators=(',', ':'), allow_nan=False)})\n".encode()


def read_photograph(source: ImageSource, preprocessing: str, max_pixels: int) -> Tensor:
    """What the network saw of it, (3, 224, 224) in [0, 1]; raises ImageError."""
    if preprocessing not in list(Preprocessing):
        raise ImageError(f"its run.json says preprocessing={preprocessing}, which is unknown here")
    with source.open() as file:
        return preprocess(decode(file, max_pixels=max_pixels), Preprocessing(preprocessing))


def photograph_content(image: Tensor, baselines: Mapping[int, Baseline]) -> dict[str, Any]:
    """The photograph and what is shown where it is deleted, as JPEGs in base64."""
    return {
        "photograph": _jpeg(image),
        "baselines": {number: _jpeg(baseline(image[None])[0]) for number, baseline in baselines.items()},
    }


def cell_content(saliency_map: np.ndarray | None, curve: Curve | None, ranking: str) -> dict[str, Any]:
    """What one cell has of an image: its curves, and its map as the step at which each element is hit.

    An element that is hit at step s belongs to every picture from step s on, exactly as the metric composes them. Its
    heat is the mean of those hit at the same step, in thousandths of the way from the map's least value to its largest:
    a byte an element has both the order and the colours.

    Args:
        saliency_map: (r, r), or None where it is missing.
        curve: The curves, or None where they are missing.
        ranking: Of the protocol: `elements`, or `pixels`, which ranks the upsampled map.

    Returns:
        `curves`: deletion and insertion in 1/10,000; `side`, `steps` (deflated, base64) and `heat` (of steps 1 to n).
    """
    content: dict[str, Any] = {}
    if curve is not None:
        content["curves"] = [_in_units(values, CURVE_UNIT) for values in (curve.deletion, curve.insertion)]
    if saliency_map is None or curve is None:
        return content
    ranked = torch.from_numpy(saliency_map)[None, None]
    ranked = ranked if ranking == "elements" else upsample(ranked, INPUT_SIZE)
    values = ranked.flatten().double().numpy()
    if curve.hits[-1] != len(values):
        return content  # curves of another map
    steps = np.searchsorted(curve.hits, rank(ranked)[0].numpy(), side="right")
    counts = np.bincount(steps, minlength=len(curve.hits))[1:]
    sums = np.bincount(steps, weights=values, minlength=len(curve.hits))[1:]
    heat = (sums / np.maximum(counts, 1) - values.min()) / max(float(np.ptp(values)), 1e-30)
    packed = zlib.compress(steps.astype(np.uint8).tobytes(), 6)
    return {**content, "side": ranked.shape[-1], "steps": _base64(packed), "heat": _in_units(heat, HEAT_UNIT)}


def baseline_of(protocol: Mapping[str, Any], kind: str) -> Baseline | None:
    """What a protocol shows where the image is not, or None where its file does not say."""
    try:
        return Baseline(**protocol[f"{kind}_baseline"])
    except (KeyError, TypeError, UserError):
        return None


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
