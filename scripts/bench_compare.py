"""One case of `bench.py`: results are compared, then pairs of times are taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from bench_cases import Case, Peer
from bench_report import Result
from torch import Tensor

from igos_bench.config import Precision

LONG = 8.0  # seconds: in a call that takes longer, warming up hardly shows
SHORT = 8.0  # seconds that all pairs of a case may have taken for one pair more
FURTHER = 1.5  # times as far from fp32 as the peer in bf16: both round, each in its own order


class DisagreementError(Exception):
    """Results that are not the same thing."""


@dataclass(frozen=True)
class Reference:
    """Our result of a case in fp32, which agreed with its peers', and the largest difference that is none there."""

    found: Tensor
    tolerance: float


References = dict[tuple[str, str, str], Reference]
"""By network, method and setting."""


def compare(
    case: Case, network: str, precision: Precision, rounds: int, pairs: int = 0, references: References | None = None
) -> list[Result]:
    """Compare the results of a case, then time its pairs.

    Args:
        case: What is run.
        network: Its name.
        precision: Of the network.
        rounds: Pairs at least.
        pairs: Pairs at most, where `rounds` of them took less than `SHORT` seconds.
        references: In fp32 ours is added; in bf16 ours is held against it, where there is one.
    """
    evaluate = case.evaluate
    calls: list[Callable[[], Tensor]] = [case.ours, *(as_found(peer) for peer in case.peers)]
    references = {} if references is None else references
    key = (network, case.method, case.setting)
    reference = references.get(key) if precision is Precision.bf16 else None
    what = f"{case.method} ({case.setting}) on {network} in {precision.value}"

    evaluate.seconds_in_passes = 0.0
    first, mine = timed(case.ours)
    in_first = evaluate.seconds_in_passes
    if not mine.any():
        raise DisagreementError(f"{what}: ours are zeros alone")
    ours_passes = (evaluate.forwards - evaluate.backwards, evaluate.backwards)
    firsts, theirs_passes, differences, agreeing = [first], [], [], []
    for peer, call in zip(case.peers, calls[1:], strict=True):
        peer.network.forwards = peer.network.gradients = 0
        first, theirs = timed(call)
        firsts.append(first)
        theirs_passes.append((peer.network.forwards, peer.network.gradients))
        if not theirs.any():
            raise DisagreementError(f"{what}: {peer.name} gives zeros alone, which shows nothing")
        difference = case.difference(mine, theirs)
        if not difference <= case.tolerance:
            raise DisagreementError(
                f"{what} differs from {peer.name} by {difference:.2g} ({case.distances.__name__}), more than "
                f"{case.tolerance:g}: no time of it counts"
            )
        agree = case.agreeing(mine, theirs)
        if precision is Precision.fp32 and 2 * agree <= case.images:
            raise DisagreementError(
                f"{what} agrees with {peer.name} in {agree} of {case.images} images, no more than half of them, to "
                f"{case.tolerance:g} ({case.distances.__name__}): no time of it counts"
            )
        if reference:
            check_rounding(case, what, mine, peer.name, theirs, reference)
        differences.append(difference)
        agreeing.append(agree)
    if precision is Precision.fp32:
        references[key] = Reference(mine, case.tolerance)

    times, in_passes = ([firsts], [in_first / firsts[0]]) if min(firsts) > LONG else ([], [])
    while len(times) < rounds or (len(times) < pairs and sum(map(sum, times)) < SHORT):
        # The other way round every second time: neither side always runs on a warm machine.
        order = range(len(calls)) if len(times) % 2 == 0 else range(len(calls) - 1, -1, -1)
        evaluate.seconds_in_passes = 0.0
        found = {i: timed(calls[i])[0] for i in order}
        times.append([found[i] for i in range(len(calls))])
        in_passes.append(evaluate.seconds_in_passes / found[0])
    results = []
    for i, peer in enumerate(case.peers):
        ratios = [row[i + 1] / row[0] for row in times]
        result = Result(
            method=case.method,
            network=network,
            precision=precision.value,
            peer=peer.name,
            setting=case.setting,
            images=case.images,
            ours_seconds=statistics.median(row[0] for row in times) / case.images,
            theirs_seconds=statistics.median(row[i + 1] for row in times) / case.images,
            ratio=statistics.median(ratios),
            ratio_min=min(ratios),
            ratio_max=max(ratios),
            pairs=len(times),
            ours_forwards=ours_passes[0] / case.images,
            ours_gradients=ours_passes[1] / case.images,
            theirs_forwards=theirs_passes[i][0] / case.images,
            theirs_gradients=theirs_passes[i][1] / case.images,
            surplus=peer.surplus,
            difference=differences[i],
            images_that_agree=agreeing[i],
            ours_forward="openvino" if evaluate.forward_network else "torch",
            ours_micro_batch=evaluate.batch_size,
            ours_in_passes=statistics.median(in_passes),
            has_efficiency=case.goes_to_the_input,
            searches_in_float32=peer.network.searches_in_float32,
        )
        print(f"  {result}", flush=True)
        results.append(result)
    return results


def check_rounding(case: Case, what: str, mine: Tensor, peer: str, theirs: Tensor, reference: Reference) -> None:
    """In bf16 two right results may be far apart; ours in fp32 tells whether ours strayed further than the peer's.

    Raises:
        DisagreementError: It did, by more than `FURTHER` times and what fp32 itself is allowed.
    """
    ours_off, theirs_off = (case.difference(result, reference.found) for result in (mine, theirs))
    allowed = FURTHER * theirs_off + reference.tolerance
    if not ours_off <= allowed:
        raise DisagreementError(
            f"{what} is {ours_off:.2g} ({case.distances.__name__}) from ours in fp32, and {peer} in bf16 only "
            f"{theirs_off:.2g}, of which {allowed:.2g} follow at most: no time of it counts"
        )


def as_found(peer: Peer) -> Callable[[], Tensor]:
    """A peer's call without the deterministic algorithms that `prepare` asks for: they are ours, and may be slower."""

    def call() -> Tensor:
        torch.use_deterministic_algorithms(False)
        try:
            return peer.call()
        finally:
            torch.use_deterministic_algorithms(True, warn_only=True)

    return call


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Wall time and result of one call; what a GPU has begun is waited for, and its result brought here."""
    started = time.perf_counter()
    result = call().cpu()
    return time.perf_counter() - started, result
