"""A batch of decoded images -> saliency maps -> curves -> rows."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .clock import Clock
from .config import Timing
from .data import ImageSource
from .errors import ImageError, UserError
from .evaluate import Evaluator, is_out_of_memory
from .foreign import MapFolder
from .formats import Row, by_id
from .metrics import deletion_insertion, is_constant
from .perturb import Baselines
from .prepare import Run


def explain_and_score(
    run: Run,
    evaluate: Evaluator,
    good: list[tuple[ImageSource, Baselines]],
    rows: dict[str, Row],
    stored: dict[str, np.ndarray] | None,
) -> list[dict[str, Any]]:
    """Explain and score a batch; where that fails, image by image, so that one fails alone.

    Args:
        run: What runs.
        evaluate: The way to the network.
        good: The images that were decoded, and their baselines.
        rows: Of these images by id, begun; filled in here, with what went wrong or with status ok.
        stored: Maps that are there already, as `RunDirectory.read_maps` returns them; None to explain.

    Returns:
        `image_id`, `map`, `deletion`, `insertion` and `hits` of each image that did not fail, as arrays.

    Raises:
        UserError: It goes for all images.
    """
    if not good:
        return []
    try:
        if run.config.timing is Timing.chunk or len(good) == 1:
            return _batch(run, evaluate, good, rows, stored)
    except UserError:
        raise
    except Exception as error:
        if len(good) == 1:
            rows[good[0][0].image_id]["error"] = _reason(error)
            return []
    return [result for one in good for result in explain_and_score(run, evaluate, [one], rows, stored)]


def _reason(error: Exception) -> str:
    """Why an image failed alone. That memory ran out, not all say that it did: oneDNN could not create a primitive."""
    scarce = isinstance(error, RuntimeError | MemoryError) and is_out_of_memory(error)
    kind = "" if isinstance(error, ImageError) else f"{type(error).__name__}: "
    return f"{'out of memory: ' * scarce}{kind}{error}".splitlines()[0]


def _batch(
    run: Run,
    evaluate: Evaluator,
    good: list[tuple[ImageSource, Baselines]],
    rows: dict[str, Row],
    stored: dict[str, np.ndarray] | None,
) -> list[dict[str, Any]]:
    config, method = run.config, run.method
    baselines = Baselines.joined([image for _, image in good], run.device)
    baselines.make(run.baselines)  # before the clock runs: that a method may share them does not make them the method's
    images = baselines.images
    logits = evaluate.logits(images)
    targets = logits.argmax(1)
    before = (evaluate.forwards, evaluate.backwards)
    clock = Clock(run.device)
    if stored is None:
        assert not isinstance(method, MapFolder)  # those have all been read
        maps = method(
            evaluate,
            images,
            targets,
            baselines=baselines[method.baseline],
            resolution=config.resolution,
            generators=[generator(config.seed, method.name, source.image_id) for source, _ in good],
            run_generator=generator(config.seed, method.name),
        )
    else:
        there = by_id(stored, "saliency_map")
        maps = torch.from_numpy(np.stack([there[source.image_id] for source, _ in good])).to(run.device)
    expected = (len(good), 1, config.resolution, config.resolution)
    if tuple(maps.shape) != expected or maps.dtype != torch.float32:
        raise ImageError(f"{method.name} must return float32 maps {expected}, found {maps.dtype} {tuple(maps.shape)}")
    if bad := int((~maps.isfinite()).sum()):
        raise ImageError(f"{method.name} gave a saliency map with {bad:,} of {maps.numel():,} values NaN or infinite")
    explain_seconds = clock.lap()
    passes = (evaluate.forwards - before[0], evaluate.backwards - before[1])
    curves = deletion_insertion(evaluate, run.protocol, images, targets, maps, baselines)
    score_seconds = clock.lap()
    count = len(good)
    results = []
    for b, (source, _) in enumerate(good):
        row = rows[source.image_id]
        row |= {"target": int(targets[b]), "ties": float(curves.ties[b])}
        if reason := _why_no_areas(logits[b], maps[b], torch.stack([curves.deletion[b], curves.insertion[b]])):
            row["error"] = reason
            continue
        row |= {
            "score_image": float(curves.deletion[b, 0]),
            "score_baseline": float(curves.deletion[b, -1]),
            "deletion_auc": float(curves.deletion_auc[b]),
            "insertion_auc": float(curves.insertion_auc[b]),
            "explain_seconds": explain_seconds / count if stored is None else None,
            "score_seconds": score_seconds / count,
            "forwards": passes[0] / count if stored is None else None,
            "backwards": passes[1] / count if stored is None else None,
            "status": "ok",
        }
        results.append(
            {
                "image_id": source.image_id,
                "map": maps[b].cpu().numpy(),
                "deletion": curves.deletion[b].cpu().numpy(),
                "insertion": curves.insertion[b].cpu().numpy(),
                "hits": curves.hits.numpy(),
            }
        )
    return results


def _why_no_areas(logits: Tensor, saliency_map: Tensor, curves: Tensor) -> str | None:
    """Why the areas of an image would say nothing of its map; None where they do.

    A map that is the same everywhere ranks nothing: ties keep the row-major order, so its areas would be those of
    deleting the image from the top, of no method's doing, and would yet count in its mean. Nor does a network tell maps
    apart that has the same probability all along both curves. One whose logits are all equal predicts no class.

    Args:
        logits: (K,) of the image.
        saliency_map: (1,r,r).
        curves: (2,n_steps+1), deletion and insertion.
    """
    if is_constant(logits):
        return "the network's logits are the same for all classes: it predicts none of them"
    if is_constant(saliency_map):
        return f"the saliency map is {float(saliency_map.flatten()[0]):.3g} everywhere: it ranks nothing"
    if is_constant(curves):
        p = float(curves[0, 0])
        return f"the network's probability is {p:.3g} whatever is deleted or inserted: no map is better than another"
    return None


def generator(*seed: object) -> torch.Generator:
    """A CPU generator seeded by the first 8 bytes of sha256("seed|method|image_id"): never by batch or position."""
    digest = hashlib.sha256("|".join(map(str, seed)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
