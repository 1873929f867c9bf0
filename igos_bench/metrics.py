"""Deletion and insertion curves and their areas, under a protocol (METHODS.md, after RISE, Petsiuk et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .config import ProtocolConfig
from .errors import UserError
from .evaluate import Evaluator
from .perturb import Baseline, Baselines, upsample


@dataclass(frozen=True)
class Protocol:
    """Every choice of the metric.

    Attributes:
        ranking: `elements` ranks the map's own r*r elements, `pixels` those of the map upsampled to the image's size.
        n_steps: Steps from nothing to everything, at most.
        spacing: `even`: at step k the first floor(k N / n + 1/2) of N elements; `floor`: steps of N // n_steps, the
            last one partial.
        area: `trapezoid`, or `right`, the right Riemann sum; both over the true fraction of elements.
        deletion_baseline, insertion_baseline: What is shown where the image is not.
    """

    name: str
    version: int
    ranking: str
    n_steps: int
    spacing: str
    area: str
    deletion_baseline: Baseline
    insertion_baseline: Baseline

    @classmethod
    def from_config(cls, config: ProtocolConfig) -> Protocol:
        """Check a protocol's choices; raises UserError."""
        choices = {"ranking": ("elements", "pixels"), "spacing": ("even", "floor"), "area": ("trapezoid", "right")}
        for key, allowed in choices.items():
            if getattr(config, key) not in allowed:
                raise UserError(f"protocol.{key}={getattr(config, key)!r} is unknown; choices: {', '.join(allowed)}")
        if config.n_steps < 1:
            raise UserError(f"protocol.n_steps must be at least 1, found {config.n_steps}")
        values = {key: getattr(config, key) for key in ("name", "version", "ranking", "n_steps", "spacing", "area")}
        return cls(
            **values,
            deletion_baseline=Baseline(**vars(config.deletion_baseline)),
            insertion_baseline=Baseline(**vars(config.insertion_baseline)),
        )

    def hits(self, elements: int) -> Tensor:
        """How many of the ranked elements are hit at each point of the curve, (n_steps + 1,), from 0 to `elements`."""
        if self.spacing == "even":
            n_steps = min(elements, self.n_steps)
            # floor(k N / n + 1/2) in whole numbers, so that no rounding decides
            return (2 * torch.arange(n_steps + 1) * elements + n_steps) // (2 * n_steps)
        step = max(1, elements // self.n_steps)
        return torch.cat([torch.arange(0, elements, step), torch.tensor([elements])])

    def areas(self, curves: Tensor, hits: Tensor) -> np.ndarray:
        """Areas (B,) in float64 under curves (B,n_steps+1) over the fraction hits / hits[-1]."""
        fraction = (hits.double() / hits[-1]).numpy()
        values = curves.double().cpu().numpy()
        if self.area == "trapezoid":
            return np.asarray(np.trapezoid(values, fraction, axis=1))
        return np.asarray((values[:, 1:] * np.diff(fraction)).sum(1))


@dataclass(frozen=True)
class Curves:
    """Of a batch: `deletion` and `insertion` (B,n_steps+1) float32, `hits` (n_steps+1,), areas and ties (B,)."""

    deletion: Tensor
    insertion: Tensor
    hits: Tensor
    deletion_auc: np.ndarray
    insertion_auc: np.ndarray
    ties: np.ndarray


def deletion_insertion(
    evaluate: Evaluator,
    protocol: Protocol,
    images: Tensor,
    targets: Tensor,
    saliency_maps: Tensor,
    baselines: Baselines | None = None,
) -> Curves:
    """Both curves of a batch: f_c while the highest-ranked elements are deleted from, or inserted into, the image.

    Args:
        evaluate: The way to the network.
        protocol: The choices.
        images: (B,3,H,W) in [0, 1].
        targets: (B,).
        saliency_maps: (B,1,r,r), finite. Of one that is the same everywhere the areas are those of the row-major order,
            which `batch` refuses.
        baselines: Of the images, where some may have been made already.

    Returns:
        Curves; lower deletion and higher insertion are better. The ends (the image, the baselines) are evaluated once.
    """
    size = images.shape[-1]
    baselines = Baselines(images) if baselines is None else baselines
    deleted, inserted = baselines[protocol.deletion_baseline], baselines[protocol.insertion_baseline]
    ranked = saliency_maps if protocol.ranking == "elements" else upsample(saliency_maps, size)
    r = ranked.shape[-1]
    position = rank(ranked)
    hits = protocol.hits(r * r)
    inner = hits[1:-1].to(images.device)

    deletion, insertion = images.new_empty(2, len(images), len(hits)).unbind()
    for b in range(len(images)):
        ends = [images[b], deleted[b]] + ([] if inserted is deleted else [inserted[b]])
        count = len(ends) + 2 * len(inner)

        def build(rows: slice, b: int = b, ends: list[Tensor] = ends, count: int = count) -> Tensor:
            """The ends first, then the deletion images, then the insertion images."""
            inputs = [end[None] for end in ends[rows]]
            first, last = (max(0, bound - len(ends)) for bound in (rows.start, min(rows.stop, count)))
            for background, foreground, offset in ((images, deleted, 0), (inserted, images, len(inner))):
                steps = inner[max(0, first - offset) : max(0, min(last - offset, len(inner)))]
                if len(steps):
                    hit = (position[b] < steps[:, None]).to(images).view(-1, 1, r, r)
                    shown = upsample(hit, size)
                    inputs.append(torch.lerp(background[b], foreground[b], shown))
            return inputs[0] if len(inputs) == 1 else torch.cat(inputs)

        found = evaluate.probability(build, targets[b].expand(count))
        image, baseline, background = found[0], found[1], found[len(ends) - 1]
        at_deletion, at_insertion = found[len(ends) :].split(len(inner)) if len(inner) else (found[:0], found[:0])
        deletion[b] = torch.cat([image[None], at_deletion, baseline[None]])
        insertion[b] = torch.cat([background[None], at_insertion, image[None]])
    return Curves(
        deletion=deletion,
        insertion=insertion,
        hits=hits,
        deletion_auc=protocol.areas(deletion, hits),
        insertion_auc=protocol.areas(insertion, hits),
        ties=np.array([tied_share(saliency_map) for saliency_map in saliency_maps]),
    )


def rank(saliency_maps: Tensor) -> Tensor:
    """Position (B,r*r) of each row-major element in the descending order."""
    order = descending(saliency_maps)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def descending(saliency_maps: Tensor) -> Tensor:
    """The row-major elements (B,r*r) in descending order; ties keep the row-major order."""
    return saliency_maps.flatten(1).argsort(dim=1, descending=True, stable=True)


def tied_share(saliency_map: Tensor) -> float:
    """Share of the elements whose value occurs more than once."""
    values = np.sort(saliency_map.cpu().numpy(), axis=None)  # thirty times as fast as torch's unique
    is_next = values[1:] == values[:-1]
    return float((np.append(is_next, False) | np.append(False, is_next)).mean())


def is_constant(values: Tensor) -> bool:
    """Whether they are all the same, and more than one."""
    return values.numel() > 1 and bool((values == values.flatten()[0]).all())
