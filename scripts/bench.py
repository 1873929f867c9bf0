"""Seconds an image, ours against other implementations of the same thing: one process, alternating, results first.

    python scripts/bench.py [quick=true] [networks=[vgg19]] [precisions=[bf16]] [methods=[rise,igos]] [device=cpu]
                            [out=results]

For each network and precision, first the ceiling: the best raw rates of the network, forward alone and forward with
the gradient to the input, over ways to run it (`bench_setup.ways`) and micro-batch sizes. Then every method's whole
call, through the `Evaluator` as a run with `evaluate.batch_size=auto` makes it, which is by the same search, beside its
peers (`peers.py`), in this process, on the same threads.
Results are compared before a time counts. Where they differ beyond the case's tolerance no time of it is taken, the
rest goes on, and the exit code is 1.

ratio        theirs / ours: the median of pairs, and their range
passes       an image: forward passes alone, and forward passes with a backward one
efficiency   passes that the peer's result needs, at the ceiling's rates, / our wall time: what we run beyond them, and
             whatever is no pass, counts against us. For methods that go to the input, as the ceiling does.

On the device that a run would have, or `device=`; on a GPU it has not been run.

Written: OUT/bench.csv with the machine, versions, date and commit in its last columns, and OUT/bench.png. `quick=true`
runs less of everything, in three minutes instead of twenty on two cores, and writes bench_quick.csv and .png.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from options import read_options
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import bench_report  # noqa: E402
from bench_cases import CASES, Block, Case, Peer  # noqa: E402
from bench_report import Ceiling, Result  # noqa: E402
from bench_setup import FULL, OURS, QUICK, USUAL, Setting, start, ways  # noqa: E402

from igos_bench.batch_size import SIZES_ON_A_GPU  # noqa: E402
from igos_bench.config import Device, Precision  # noqa: E402
from igos_bench.errors import UserError  # noqa: E402
from igos_bench.prepare import Run  # noqa: E402
from igos_bench.rates import Rate, Way, measure_rates  # noqa: E402

LONGEST_MICRO_BATCH = 6.0  # seconds; larger ones of VGG19 would take most of the time and gain nothing
LONG = 15.0  # seconds: in a call that takes longer, warming up does not show


@dataclass
class Options:
    """What to run; `methods` empty is all, and `out` is a folder."""

    quick: bool = False
    networks: list[str] = field(default_factory=lambda: list(FULL))
    precisions: list[Precision] = field(default_factory=lambda: [Precision.fp32, Precision.bf16])
    methods: list[str] = field(default_factory=list)
    device: Device = Device.auto
    out: str = str(ROOT / "results")


class DisagreementError(Exception):
    """Results that are not the same thing."""


def main() -> int:
    """Measure everything, then write and print it."""
    began = time.perf_counter()
    try:
        options = read_options(Options)
        settings = QUICK if options.quick else FULL
        if unknown := set(options.networks) - settings.keys():
            raise UserError(f"networks={sorted(unknown)}: choose from {', '.join(settings)}")
        if unknown := set(options.methods) - bench_report.REQUIRED.keys():
            raise UserError(f"methods={sorted(unknown)}: choose from {', '.join(bench_report.REQUIRED)}")
        if not find_spec("quantus"):
            raise UserError("quantus is not installed: `make bench` does that")
        ceilings: list[Ceiling] = []
        results: list[Result] = []
        disagreements: list[str] = []
        with TemporaryDirectory() as folder:
            for network, precision in product(options.networks, options.precisions):
                print(f"{network}, {precision.value}", flush=True)
                setting = settings[network]
                run = start(network, precision, setting, Path(folder), options.device)
                found = measure(run, setting, options.methods, disagreements)
                ceilings += found[0]
                results += found[1]
    except UserError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    out, stem = Path(options.out), "bench_quick" if options.quick else "bench"
    out.mkdir(parents=True, exist_ok=True)
    bench_report.write_csv(ceilings, results, out / f"{stem}.csv")
    bench_report.draw(results, out / f"{stem}.png")
    print(bench_report.printed(ceilings, results))
    print(f"\n{(time.perf_counter() - began) / 60:.1f} minutes; written to {out / stem}.csv and .png")
    for disagreement in disagreements:
        print(f"bench: {disagreement}", file=sys.stderr)
    return 1 if disagreements else 0


def measure(
    run: Run, setting: Setting, methods: list[str], disagreements: list[str]
) -> tuple[list[Ceiling], list[Result]]:
    """One network and precision; adds to `disagreements` what is no comparison."""
    precision = run.config.precision
    network_ways = ways(run)
    sizes = setting.sizes if run.device.type == "cpu" else sorted({*setting.sizes, *SIZES_ON_A_GPU})
    rates = {b: rates_of(network_ways, sizes, setting.rounds, run, backward=b) for b in (False, True)}
    for backward, found in rates.items():
        usual = next(rate for rate in found if (rate.way, rate.size) == (USUAL, 1))
        what = "forward + backward" if backward else "forward"
        print(f"  {what}: {milliseconds(found[0])}; the usual way {milliseconds(usual)}", flush=True)
    results = []
    block = Block.of(run, setting, next(rate.size for rate in rates[True] if rate.way == OURS))
    for method, case in CASES:
        if methods and method not in methods:
            continue
        try:
            results += compare(case(block), run.classifier.name, precision, setting.rounds)
        except DisagreementError as error:
            print(f"  bench: {error}", flush=True)
            disagreements.append(str(error))
        gc.collect()  # a peer's copy of the network
    # The machine may have been slower at the start: the ceiling is the better one of both.
    ceilings = []
    for backward, found in rates.items():
        usual = next(rate for rate in found if (rate.way, rate.size) == (USUAL, 1))
        best = found[0]
        again = rates_of({best.way: network_ways[best.way]}, (best.size,), setting.rounds, run, backward=backward)[0]
        ceilings.append(Ceiling(run.classifier.name, precision.value, backward, best, again, usual))
    for result in results:
        result.set_efficiency(*ceilings)
    return ceilings, results


def rates_of(
    network_ways: dict[str, Way], sizes: Sequence[int], rounds: int, run: Run, *, backward: bool
) -> list[Rate]:
    """The rates, fastest first."""
    return measure_rates(
        network_ways,
        sizes,
        backward=backward,
        precision=run.config.precision,
        device=run.device,
        rounds=rounds,
        longest=LONGEST_MICRO_BATCH,
    )


def compare(case: Case, network: str, precision: Precision, rounds: int) -> list[Result]:
    """Compare the results of a case, then time its pairs."""
    evaluate = case.evaluate
    calls: list[Callable[[], Tensor]] = [case.ours, *(as_found(peer) for peer in case.peers)]
    first, mine = timed(case.ours)
    if not mine.any():
        raise DisagreementError(f"{case.method} on {network} in {precision.value}: ours are zeros alone")
    ours_passes = (evaluate.forwards - evaluate.backwards, evaluate.backwards)
    firsts, theirs_passes, differences = [first], [], []
    for peer, call in zip(case.peers, calls[1:], strict=True):
        peer.network.forwards = peer.network.gradients = 0
        first, theirs = timed(call)
        firsts.append(first)
        theirs_passes.append((peer.network.forwards, peer.network.gradients))
        if not theirs.any():
            raise DisagreementError(f"{case.method} on {network}: {peer.name} gives zeros alone, which shows nothing")
        difference = case.difference(mine, theirs)
        if not difference <= case.tolerance:
            raise DisagreementError(
                f"{case.method} ({case.setting}) on {network} in {precision.value} differs from {peer.name} by "
                f"{difference:.2g} ({case.difference.__name__}), more than {case.tolerance:g}: no time of it counts"
            )
        differences.append(difference)
    times = [firsts] if min(firsts) > LONG else []
    while len(times) < rounds:
        # The other way round every second time: neither side always runs on a warm machine.
        order = range(len(calls)) if len(times) % 2 == 0 else range(len(calls) - 1, -1, -1)
        found = {i: timed(calls[i])[0] for i in order}
        times.append([found[i] for i in range(len(calls))])
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
            ours_micro_batch=evaluate.batch_size,
            has_efficiency=case.goes_to_the_input,
        )
        print(f"  {result}", flush=True)
        results.append(result)
    return results


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


def milliseconds(rate: Rate) -> str:
    """A rate for people."""
    return f"{rate.seconds * 1000:.1f} ms an input ({rate.way}, micro-batch {rate.size})"


if __name__ == "__main__":
    sys.exit(main())
