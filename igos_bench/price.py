"""What a cell costs: passes of the network for an image, seconds of a pass, bytes on the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd

from .cells import Cell
from .config import INPUT_SIZE, Precision, RunConfig
from .errors import UserError
from .kept import keep, recall

if TYPE_CHECKING:
    from .methods import Method

GRADIENT = 3
"""Forward passes that a forward and backward pass cost, where nothing tells: the backward one is taken for two."""

TRIES = 6
"""Of I-GOS's line search in an iteration: 4 to 8 on photographs, in the mean of 20."""

ROW = 500
"""Bytes of an image's row, which its chunk's file and records.csv have, and of its name, of up to 30 letters, twice."""

CHUNK = 2000
"""Bytes that a chunk's files have whatever its images, their headers, and its entries where many chunks are packed."""


@dataclass(frozen=True)
class Passes:
    """For one image: forward passes alone, and forward passes with a backward one."""

    alone: float
    gradients: float


@dataclass(frozen=True)
class Speed:
    """Seconds of a forward pass of one input, and of a forward and backward one; `source` says whence, for people."""

    forward: float
    gradient: float
    source: str

    def seconds(self, passes: Passes) -> float:
        """What these take."""
        return passes.alone * self.forward + passes.gradients * self.gradient


def explaining(method: Method) -> Passes | None:
    """Passes of a method for an image, I-GOS's and others' searches in the mean; None for one that is not ours."""
    given: Any = method
    match method.name:
        case "grad_cam" | "excitation_bp":
            return Passes(0, 1)
        case "integrated_gradients":
            return Passes(0, given.steps)
        case "rise":
            return Passes(given.masks, 0)
        case "mask":
            return Passes(0, given.iterations)
        case "igos":
            return Passes(1 + given.iterations * TRIES, given.iterations * given.path_steps)
    return None


def points(resolution: int, n_steps: int, ranking: str = "elements", spacing: str = "even") -> int:
    """Of a curve, as `metrics.Protocol.hits` has them."""
    elements = (resolution if ranking == "elements" else INPUT_SIZE) ** 2
    if spacing == "even":
        return min(elements, n_steps) + 1
    return len(range(0, elements, max(1, elements // n_steps))) + 1


def scoring(points: int) -> Passes:
    """Of both curves of an image, whose ends are shared."""
    return Passes(2 * (points - 2) + 2, 0)


def stored_bytes(images: int, resolution: int, points: int, chunk_size: int) -> int:
    """At most, on the disk: maps and two curves an image in float32, a chunk's points in int64, compressed; rows."""
    chunks = -(-images // chunk_size)
    return images * (4 * (resolution**2 + 2 * points) + ROW) + chunks * (8 * points + CHUNK)


def given_speed(rate: str) -> Speed:
    """What `rate=FORWARD` or `rate=FORWARD,GRADIENT`, inputs a second, means; raises UserError."""
    try:
        forward, gradient = ([float(part) for part in rate.split(",")] + [0.0])[:2]
        if rate.count(",") == 0:
            gradient = forward / GRADIENT
        if rate.count(",") > 1 or not (0 < forward < 1e12 and 0 < gradient < 1e12):
            raise ValueError
    except ValueError:
        raise UserError(
            f"rate={rate}: write inputs a second, of forward passes, and after a comma of forward and backward passes "
            f"where that is known (else a third of it), as in rate=2400,750; or measured, to measure this device"
        ) from None
    return Speed(1 / forward, 1 / gradient, "the rate given")


def scaled_seconds(
    cells: Sequence[Cell], settings: Mapping[str, str], passes: Passes | None, points: int
) -> float | None:
    """Of an image: the mean of what rows of the same method took, by how many more passes it needs than they did.

    Args:
        cells: Of one model and method, in one precision; at any resolution, under any protocol.
        settings: What is asked for, as `Cell.settings`. A cell with the same hyper-parameters explains as fast.
        passes: What explaining takes; None where only cells with the same hyper-parameters tell.
        points: Of a curve.
    """
    found = []
    for cell in cells:
        rows = cell.rows
        if _hyper_parameters(cell.settings) == _hyper_parameters(settings):
            explain = rows["explain_seconds"]
        elif passes:
            counted = rows["forwards"] + (GRADIENT - 1) * rows["backwards"]  # a gradient is one of each
            explain = rows["explain_seconds"] * ((passes.alone + GRADIENT * passes.gradients) / counted)
        else:
            continue
        more = scoring(points).alone / scoring(_points_of(cell)).alone
        found.append(explain + more * rows["score_seconds"])
    known = pd.concat(found).dropna() if found else pd.Series(dtype=float)
    return float(known.mean()) if len(known) else None


def _hyper_parameters(settings: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in settings.items() if key.startswith("method.")}


def calibrated_speed(cells: Sequence[Cell]) -> Speed | None:
    """From the times and passes of cells of one model that are done; None where there are none.

    Grad-CAM and Excitation BP, whose backward pass ends at a layer, and others with few passes tell of scoring alone.
    Other work on the machine slows a cell's passes alike: of a gradient it tells how many forward passes it costs.
    Medians, as it may have slowed some cells and not others.
    """
    forwards, ratios = [], []
    for cell in cells:
        spent = {key: float(cell.rows[key].mean()) for key in ("explain_seconds", "score_seconds")}
        if not spent["score_seconds"] > 0:  # NaN where none is done
            continue
        forward = spent["score_seconds"] / scoring(_points_of(cell)).alone
        forwards.append(forward)
        both, gradients = (float(cell.rows[key].mean()) for key in ("forwards", "backwards"))
        # I-GOS's search is in float32 whatever the precision, which the rows' forward passes do not tell apart.
        is_mixed = cell.method == "igos" and cell.settings["precision"] != Precision.fp32.value
        if gradients >= 10 and spent["explain_seconds"] > 0 and not is_mixed:
            ratios.append((spent["explain_seconds"] / forward - (both - gradients)) / gradients)
    if not forwards:
        return None
    ratio = median(ratios) if ratios else GRADIENT
    return Speed(median(forwards), ratio * median(forwards), f"{len(forwards)} other cells of the model")


def _points_of(cell: Cell) -> int:
    there = {key: cell.settings.get(f"protocol.{key}") for key in ("ranking", "spacing")}
    chosen = {key: value for key, value in there.items() if value is not None}
    return points(cell.resolution, int(cell.settings["protocol.n_steps"]), **chosen)


def measured_speed(config: RunConfig) -> Speed:
    """The raw rate of this device, with the micro-batch that a run would take; kept in the user's cache folder.

    The network has random weights, which are as fast as any. Raises UserError where it cannot be built.
    """
    from .batch_size import choose_batch_size, conditions
    from .memory import keep_freed_memory
    from .models import load_classifier
    from .prepare import choose_device, forbid_shortcuts
    from .rates import Way, measure_rates

    device = choose_device(config.device, config.precision)
    asked = config.evaluate.batch_size
    described = {
        "model": f"{config.model.library} {config.model.architecture}",
        **conditions(device, config.precision),
        "asked": asked,
    }
    name = f"rate-{config.model.library}-{config.model.architecture}-{device.type}-{config.precision.value}"
    name = name.replace("/", "_")
    known = recall(name, described)
    if known is None:
        forbid_shortcuts()
        if device.type == "cpu":
            keep_freed_memory()
        random = replace(config.model, weights=None, sha256=None)
        network = load_classifier(random, device, precision=config.precision).fast_network
        size = choose_batch_size(asked, f"{config.model.name}-random", network, device, config.precision)
        found = [
            measure_rates({"fast": Way(network)}, [size], backward=b, precision=config.precision, device=device)
            for b in (False, True)
        ]
        if not all(found):
            raise UserError(
                f"evaluate.batch_size={size}: {config.model.name} has no memory here for such a micro-batch"
            )
        known = {"forward": found[0][0].seconds, "gradient": found[1][0].seconds}
        keep(name, described, known, "the measured rate")
    return Speed(float(known["forward"]), float(known["gradient"]), "the rate measured here")
