"""One image in one cell, as its run has stored it: map and curves, and the pictures that the metric looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cells import Cell
from .classes import class_title
from .config import INPUT_SIZE
from .errors import ImageError, UserError
from .formats import read_json
from .layout import KINDS
from .metrics import rank
from .perturb import Baseline, blend, upsample
from .photographs import Photographs, read_photograph
from .source import ImageSource
from .stored import Curve, StoredCell


@dataclass(frozen=True)
class Explained:
    """One image in one cell; what is missing of it is None, and named in `troubles`.

    Attributes:
        target: The class that was explained, as it stands in print.
        label: Its class by the data set, in print; None where it has none, or the same.
        probability: Of the target, on the photograph.
        areas: Deletion and insertion.
        photograph: What the network saw, (3, 224, 224) in [0, 1].
        baselines: What is shown where the image is deleted, and where it is not yet inserted, likewise.
        curve: The stored curves.
        steps: At which step of the curves each ranked element is hit, (side, side), from 1.
        heat: Of each element, (side, side) in [0, 1].
        troubles: Why something is not there, by its attribute's name, a sentence's part for people.
    """

    cell: Cell
    image_id: str
    target: str
    label: str | None
    probability: float
    areas: Mapping[str, float]
    photograph: Tensor | None
    baselines: Mapping[str, Tensor] | None
    curve: Curve | None
    steps: np.ndarray | None
    heat: np.ndarray | None
    troubles: Mapping[str, str]

    def nearest_step(self, fraction: float) -> int:
        """The step of the curves at which the share of hit elements is nearest to `fraction`, the earlier of two."""
        assert self.curve is not None
        return int(np.abs(self.curve.shares - fraction).argmin())

    def perturbed(self, kind: str, step: int) -> Tensor:
        """What the network saw at a step of the curve of `deletion` or `insertion`, (3, 224, 224)."""
        assert self.photograph is not None and self.baselines is not None and self.steps is not None
        ends = (self.photograph, self.baselines[kind])
        background, foreground = ends if kind == "deletion" else ends[::-1]
        hit = torch.from_numpy(self.steps <= step).to(background)[None, None]
        return blend(foreground[None], background[None], hit)[0]


def explained(cell: Cell, image_id: str) -> Explained:
    """Read what there is of an image that is done in a cell."""
    run = cell.directory.read_provenance() or {}
    protocol = read_json(cell.directory.protocol_path / "protocol.json") or {}
    row: Any = cell.rows.loc[image_id]
    stored = StoredCell(cell)
    troubles: dict[str, str] = {}
    photograph = _photograph(run, image_id, troubles)
    saliency_map, curve = stored.saliency_map(image_id), stored.curve(image_id)
    if curve is None:
        troubles["curve"] = f"its curves are missing or damaged, see {cell.directory.protocol_path / 'curves'}"
    found = None
    if saliency_map is None:
        troubles["heat"] = f"its map is missing or damaged, see {cell.directory.path / 'maps'}"
    elif curve is None:
        troubles["heat"] = "its map is shown as its curves rank it, and they are missing"
    else:
        found = steps_and_heat(saliency_map, curve.hits, protocol.get("ranking", "elements"))
        if found is None:
            troubles["heat"] = "its map does not belong to its curves"
    layout = run.get("config", {}).get("data", {}).get("layout", "")
    label, target = row["label"], row["target"]
    return Explained(
        cell=cell,
        image_id=image_id,
        target=class_title(target, layout),
        label=None if np.isnan(label) or label == target else class_title(label, layout),
        probability=float(row["score_image"]),
        areas={kind: float(row[f"{kind}_auc"]) for kind in KINDS},
        photograph=photograph,
        baselines=None if photograph is None else _baselines(protocol, photograph, troubles),
        curve=curve,
        steps=found and found[0],
        heat=found and found[1][found[0] - 1],
        troubles=troubles,
    )


def steps_and_heat(saliency_map: np.ndarray, hits: np.ndarray, ranking: str) -> tuple[np.ndarray, np.ndarray] | None:
    """When each element of a map is hit, and how hot those are that are hit at each step.

    Args:
        saliency_map: (r, r).
        hits: (n + 1,), how many ranked elements are hit at each point of the curves.
        ranking: Of the protocol: `elements`, or `pixels`, which ranks the upsampled map.

    Returns:
        The steps (side, side), from 1 to n: an element that is hit at step s belongs to every picture from step s on,
        exactly as the metric composes them. And the heat (n,), the mean of the elements that are hit at the same step,
        from 0 at the map's least value to 1 at its largest. None where the curves are of another map.
    """
    ranked = torch.from_numpy(saliency_map)[None, None]
    ranked = ranked if ranking == "elements" else upsample(ranked, INPUT_SIZE)
    values = ranked.flatten().double().numpy()
    if hits[-1] != len(values):
        return None
    steps = np.searchsorted(hits, rank(ranked)[0].numpy(), side="right")
    counts = np.bincount(steps, minlength=len(hits))[1:]
    sums = np.bincount(steps, weights=values, minlength=len(hits))[1:]
    heat = (sums / np.maximum(counts, 1) - values.min()) / max(float(np.ptp(values)), 1e-30)
    return steps.reshape(ranked.shape[-2:]), heat


def baseline_of(protocol: Mapping[str, Any], kind: str) -> Baseline | None:
    """What a protocol shows where the image is not, or None where its file does not say."""
    try:
        return Baseline(**protocol[f"{kind}_baseline"])
    except (KeyError, TypeError, UserError):
        return None


def _photograph(run: Mapping[str, Any], image_id: str, troubles: dict[str, str]) -> Tensor | None:
    photographs = Photographs(run)
    source = photographs.find(image_id)
    config = run.get("config", {})
    try:
        if not isinstance(source, ImageSource):
            raise ImageError(source)
        max_pixels = config.get("data", {}).get("max_pixels", 100_000_000)
        return read_photograph(source, str(config.get("preprocessing", "plain")), max_pixels)
    except ImageError as error:
        troubles["photograph"] = f"its photograph cannot be shown: {error}"
        return None


def _baselines(protocol: Mapping[str, Any], image: Tensor, troubles: dict[str, str]) -> dict[str, Tensor] | None:
    found = {kind: baseline_of(protocol, kind) for kind in KINDS}
    if None in found.values():
        troubles["baselines"] = "the protocol's file does not say what is shown where the image is deleted"
        return None
    return {kind: baseline(image[None])[0] for kind, baseline in found.items() if baseline}
