"""One image in one cell, as its run has stored it: map and curves, and the pictures that the metric looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cells import Cell
from .classes import class_title, has_imagenet_classes
from .config import INPUT_SIZE, ProtocolConfig
from .errors import ImageError, UserError
from .formats import read_json
from .layout import KINDS
from .metrics import Protocol, descending
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
        steps: At which step of the curves each ranked element is hit, (side, side), from 1; without curves, of those
            that the protocol would make.
        heat: Of each ranked element, (side, side) from 0 at the map's least value to 1 at its largest.
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
    steps = heat = None
    if saliency_map is None:
        troubles["heat"] = f"its map is missing or damaged, see {cell.directory.path / 'maps'}"
    else:
        ranked = ranked_of(saliency_map, protocol)
        steps = steps_of(ranked, hits_of(protocol, ranked.numel()) if curve is None else curve.hits)
        heat = None if steps is None else heat_of(ranked)
        if heat is None:
            troubles["heat"] = "its map does not belong to its curves"
    is_imagenets = has_imagenet_classes(run)
    label, target = row["label"], row["target"]
    return Explained(
        cell=cell,
        image_id=image_id,
        target=class_title(target, is_imagenets=is_imagenets),
        label=None if np.isnan(label) or label == target else class_title(label, is_imagenets=is_imagenets),
        probability=float(row["score_image"]),
        areas={kind: float(row[f"{kind}_auc"]) for kind in KINDS},
        photograph=photograph,
        baselines=None if photograph is None else _baselines(protocol, photograph, troubles),
        curve=curve,
        steps=steps,
        heat=heat,
        troubles=troubles,
    )


def ranked_of(saliency_map: np.ndarray, protocol: Mapping[str, Any]) -> Tensor:
    """What a protocol ranks of a map (r, r): its elements, or those of the upsampled map, as (1, 1, side, side)."""
    ranked = torch.from_numpy(saliency_map)[None, None]
    return upsample(ranked, INPUT_SIZE) if protocol.get("ranking") == "pixels" else ranked


def hits_of(protocol: Mapping[str, Any], elements: int) -> np.ndarray:
    """How many ranked elements a protocol hits at each point, (n + 1,); one more each where its file does not say."""
    try:
        config = ProtocolConfig(n_steps=protocol["n_steps"], spacing=protocol["spacing"])
        return Protocol.from_config(config).hits(elements).numpy()
    except (KeyError, TypeError, UserError):
        return np.arange(elements + 1)


def steps_of(ranked: Tensor, hits: np.ndarray) -> np.ndarray | None:
    """When each element of a map is hit.

    Args:
        ranked: (1, 1, side, side).
        hits: (n + 1,), how many of its elements are hit at each point of the curves.

    Returns:
        (side, side), from 1 to n: an element that is hit at step s belongs to every picture from step s on, exactly as
        the metric composes them. None where the curves are of another map.
    """
    if hits[-1] != ranked.numel():
        return None
    steps = np.empty(ranked.numel(), dtype=int)
    steps[descending(ranked)[0].numpy()] = np.searchsorted(hits, np.arange(ranked.numel()), side="right")
    return steps.reshape(ranked.shape[-2:])


def heat_of(ranked: Tensor) -> np.ndarray:
    """The map (1, 1, side, side) as (side, side), from 0 at its least value to 1 at its largest."""
    values = ranked[0, 0].double().numpy()
    return np.asarray((values - values.min()) / max(float(np.ptp(values)), 1e-30))


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
