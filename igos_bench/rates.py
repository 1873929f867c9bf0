"""The best raw rates of a network on this machine: seconds an input, over ways to run it and sizes of the micro-batch.

They are the ceiling that `make bench` holds methods against, and what a micro-batch size is chosen by. Caches decide
which size is best, so that it is measured and not worked out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .clock import Clock
from .config import INPUT_SIZE, Precision
from .evaluate import is_out_of_memory
from .precision import allow_tf32, autocast

CONTENDERS = 4  # that are measured again: the fastest so far
SHORTEST = 0.2  # seconds of one measurement: what is shorter is repeated
COLD = 1.0  # seconds: what takes longer hardly shows that it runs for the first time
RUNS = 3  # of which the median counts, and as many
WARM_UPS = 2  # before them: memory is new, and up to three times as slow, in more than the first run


@dataclass(frozen=True)
class Way:
    """One way to run a network.

    Attributes:
        network: Inputs (N,3,H,W) -> logits (N,K), in eval mode, parameters frozen.
        memory_format: Of the inputs that it is given.
    """

    network: Callable[[Tensor], Tensor]
    memory_format: torch.memory_format = torch.contiguous_format


@dataclass(frozen=True)
class Rate:
    """Seconds an input, by the name of the way and the inputs in one micro-batch."""

    way: str
    size: int
    seconds: float


def measure_rates(
    ways: Mapping[str, Way],
    sizes: Sequence[int],
    *,
    backward: bool,
    precision: Precision,
    device: torch.device,
    rounds: int = 3,
    longest: float = math.inf,
    input_size: int = INPUT_SIZE,
) -> list[Rate]:
    """Measure every way at every size, and again those that could be the best one.

    All are measured in turn, round after round, so that other work on the machine hits all of them.

    Args:
        ways: By name.
        sizes: Of the micro-batch. Where memory runs out, or a micro-batch would take more than `longest` seconds, the
            larger ones are left out; the smallest is always measured.
        backward: A forward pass and the gradient of a logit to the inputs; else the forward pass alone.
        precision: as in an `Evaluator`.
        device: Where the networks are.
        rounds: How often; the fastest counts.
        longest: Seconds.
        input_size: H and W.

    Returns:
        What was measured, fastest first; empty where there is memory for none.
    """
    best: dict[tuple[str, int], float] = {}
    for turn in range(rounds):
        contenders = sorted(best, key=lambda key: best[key])[:CONTENDERS]
        for name, way in ways.items():
            seconds = 0.0
            for size in sorted(sizes):
                if turn and (name, size) not in contenders:
                    continue
                if seconds * size > longest:  # going by the size before
                    break
                try:
                    run = _run(way, size, input_size, backward, precision, device)
                    if not turn and seconds * size < COLD:
                        for _ in range(WARM_UPS):
                            run()
                    seconds = _seconds(run, device) / size
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    break
                best[name, size] = min(seconds, best.get((name, size), math.inf))
    return sorted((Rate(*key, seconds) for key, seconds in best.items()), key=lambda rate: rate.seconds)


def _run(
    way: Way, size: int, input_size: int, backward: bool, precision: Precision, device: torch.device
) -> Callable[[], None]:
    """One micro-batch."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(size, 3, input_size, input_size, generator=generator).to(device)
    inputs = inputs.contiguous(memory_format=way.memory_format).requires_grad_(backward)

    def run() -> None:
        with allow_tf32(precision):
            with torch.enable_grad() if backward else torch.inference_mode(), autocast(precision, device):
                logits = way.network(inputs)
            if backward:
                torch.autograd.grad(logits[:, 0].float().sum(), inputs)

    return run


def _seconds(run: Callable[[], None], device: torch.device) -> float:
    """Median wall time of `RUNS` or more, for `SHORTEST` seconds; of fewer where those take over `COLD` seconds."""
    clock = Clock(device)
    laps: list[float] = []
    while sum(laps) < SHORTEST or (len(laps) < RUNS and sum(laps) < COLD):
        run()
        laps.append(clock.lap())
    return statistics.median(laps)
