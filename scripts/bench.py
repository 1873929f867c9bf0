"""Seconds an image, ours against other implementations of the same thing: one process, alternating, results first.

    python scripts/bench.py [quick=true] [networks=[vgg19]] [precisions=[bf16]] [methods=[rise,igos]] [device=cpu]
                            [out=results]

For each network and precision, first the ceiling: the best raw rates of the network, forward alone and forward with
the gradient to the input, over ways to run it (`bench_setup.ways`) and micro-batch sizes, but for those that take
longer than `LONGEST_MICRO_BATCH`; OpenVINO, which runs four inputs a call in any case, at ours. Then every method's
whole call, through the `Evaluator` as a run with `evaluate.batch_size=auto` makes it, at the micro-batch of the same
search, beside its peers (`peers.py`), in this process, on the same threads. Passes without a gradient, of RISE, the
metric and I-GOS's line search, are OpenVINO's (`evaluate.forward=openvino`) where that is faster: column
`ours_forward`.
In bf16 the line search is in float32 all the same, and so is that of the literal loop, whose passes count at fp32's
ceiling (`searches_in_float32`; no efficiency where `precisions` leaves fp32 out); a second one is in bf16 throughout.
Results are compared before a time counts. Where they differ beyond the case's tolerance, or ours in bf16 is further
from ours in fp32 than the peer's in bf16 explains, no time of it is taken, the rest goes on, and the exit code is 1.

ratio        theirs / ours: the median of pairs, and their range
difference   of the image that is furthest off; of I-GOS, whose line search may turn on a rounding, of the median one
passes       an image: forward passes alone, and forward passes with a backward one
efficiency   passes that the peer's result needs, at the ceiling's rates, / our wall time: what we run beyond them, and
             whatever is no pass, counts against us. For methods that go to the input, as the ceiling does.
             It is the product of the two printed after it: the share of our wall time inside the network's passes
             (`ours_in_passes`: the rest is ours), and the needed passes at the ceiling's rates / the time in ours
             (below 1, passes slower than the ceiling, or more of them)

On the device that a run would have, or `device=`; on a GPU it has not been run.

Written: OUT/bench.csv with the machine, versions, date and commit in its last columns, OUT/bench.png, and all raw rates
as OUT/bench_rates.csv. `quick=true` runs less of everything, in three minutes instead of twenty on two cores, chooses
our micro-batch from fewer, and writes bench_quick.csv, bench_quick.png and bench_quick_rates.csv.
Some of the networks, precisions or methods alone are a part: bench_part.csv, or bench_quick_part.csv, and so on. So is
what was measured when the bench ended early: by Ctrl-C (exit code 130), SIGTERM (143) or an error. A network's ceiling
and efficiencies are worked out once all its methods are done, and are missing where it did not come to that.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from options import read_options

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import bench_report  # noqa: E402
from bench_cases import CASES, METRIC, Block  # noqa: E402
from bench_compare import DisagreementError, References, compare  # noqa: E402
from bench_report import Ceiling, RawRate, Result  # noqa: E402
from bench_setup import FULL, OPENVINO, OURS, QUICK, USUAL, Setting, by_openvino, start, ways  # noqa: E402

from igos_bench.batch_size import SIZES_ON_A_GPU, fastest_size  # noqa: E402
from igos_bench.config import Device, Precision  # noqa: E402
from igos_bench.errors import UserError  # noqa: E402
from igos_bench.prepare import Run, choose_device  # noqa: E402
from igos_bench.rates import Rate, Way, measure_rates  # noqa: E402

LONGEST_MICRO_BATCH = 4.0  # seconds; larger ones of VGG19, raw, would take most of the time and gain nothing


@dataclass
class Options:
    """What to run; `methods` empty is all, and `out` is a folder."""

    quick: bool = False
    networks: list[str] = field(default_factory=lambda: list(FULL))
    precisions: list[Precision] = field(default_factory=lambda: [Precision.fp32, Precision.bf16])
    methods: list[str] = field(default_factory=list)
    device: Device = Device.auto
    out: str = str(ROOT / "results")


@dataclass
class Found:
    """What has been measured so far, and, in `disagreements`, what is no comparison."""

    ceilings: list[Ceiling] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    rates: list[RawRate] = field(default_factory=list)
    references: References = field(default_factory=dict)
    disagreements: list[str] = field(default_factory=list)


def main() -> int:
    """Measure everything; write and print what was measured, however that ended."""
    began = time.perf_counter()
    try:
        options = read_options(Options)
        device = check(options)
    except UserError as error:
        print(f"bench: {error}", file=sys.stderr)
        return UserError.code
    found, ended, code = Found(), False, 0
    try:
        measure_all(options, found)
        ended = True
    except UserError as error:
        print(f"bench: {error}", file=sys.stderr)
        code = error.code
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        code = 130
    finally:  # also of an error that nobody expected, whose traceback comes after it
        whole = ended and is_whole(options)
        stem = f"bench{'_quick' if options.quick else ''}{'' if whole else '_part'}"
        print(f"\n{(time.perf_counter() - began) / 60:.1f} minutes; {write(found, Path(options.out) / stem, device)}")
        for disagreement in found.disagreements:
            print(f"bench: {disagreement}", file=sys.stderr)
        if not ended:
            print("bench: ended before all was measured", file=sys.stderr)
    return code or (1 if found.disagreements else 0)


def check(options: Options) -> torch.device:
    """The device of what is asked for, all of which can be run and written.

    Raises:
        UserError: It cannot.
    """
    settings = QUICK if options.quick else FULL
    unknown = set(options.networks) - settings.keys()
    if unknown or not options.networks:
        raise UserError(f"networks={sorted(unknown)}: choose from {', '.join(settings)}")
    if not options.precisions:
        raise UserError(f"precisions=[]: choose from {', '.join(precision.value for precision in Precision)}")
    if unknown := set(options.methods) - bench_report.REQUIRED.keys():
        raise UserError(f"methods={sorted(unknown)}: choose from {', '.join(bench_report.REQUIRED)}")
    if (not options.methods or METRIC in options.methods) and not find_spec("quantus"):
        raise UserError("quantus is not installed: `make bench` does that")
    devices = [choose_device(options.device, precision) for precision in options.precisions]
    try:
        Path(options.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={options.out}: {error.strerror}; name a folder that you can write to") from None
    return devices[0]


def is_whole(options: Options) -> bool:
    """Whether nothing of the bench is left out."""
    every = Options(methods=list(bench_report.REQUIRED))
    return (
        {*options.networks} >= {*every.networks}
        and {*options.precisions} >= {*every.precisions}
        and (not options.methods or {*options.methods} >= {*every.methods})
    )


def measure_all(options: Options, found: Found) -> None:
    """Every network in every precision; adds to `found`."""
    settings = QUICK if options.quick else FULL
    with TemporaryDirectory() as folder:
        for network, precision in product(options.networks, options.precisions):
            print(f"{network}, {precision.value}", flush=True)
            run = start(network, precision, settings[network], Path(folder), options.device)
            measure(run, settings[network], options.methods, found)


def write(found: Found, path: Path, device: torch.device) -> str:
    """Write PATH.csv, PATH_rates.csv and PATH.png, print the table, and return what was written, for people."""
    if not found.rates:
        return "nothing was measured, and nothing is written"
    bench_report.write_csv(found.ceilings, found.results, Path(f"{path}.csv"), device)
    bench_report.write_rates(found.rates, Path(f"{path}_rates.csv"), device)
    if found.results:
        bench_report.draw(found.results, Path(f"{path}.png"), device)
    print(bench_report.printed(found.ceilings, found.results))
    return f"written to {path}.csv, {'.png ' if found.results else ''}and _rates.csv"


def measure(run: Run, setting: Setting, methods: list[str], found: Found) -> None:
    """One network and precision; adds to `found`."""
    name, precision = run.classifier.name, run.config.precision
    network_ways, on_the_cpu = ways(run), run.device.type == "cpu"
    sizes = setting.sizes if on_the_cpu else sorted({*setting.sizes, *SIZES_ON_A_GPU})
    # `evaluate.batch_size=auto`
    micro_batch = fastest_size(run.classifier.fast_network, run.device, precision, sizes if on_the_cpu else None)
    print(f"  our micro-batch: {micro_batch}", flush=True)
    rates = {}
    engine = by_openvino(run)
    forward_alone = {OPENVINO: Way(engine)} if engine else {}
    for backward in (False, True):
        rates[backward] = rates_of(network_ways, sizes, setting.rounds, run, backward=backward)
        if not any((rate.way, rate.size) == (OURS, micro_batch) for rate in rates[backward]):  # it takes too long
            one = rates_of({OURS: network_ways[OURS]}, (micro_batch,), setting.rounds, run, backward=backward)
            rates[backward] = sorted([*rates[backward], *one], key=lambda rate: rate.seconds)
        if not backward:
            one = rates_of(forward_alone, (micro_batch,), setting.rounds, run, backward=False)
            rates[False] = sorted([*rates[False], *one], key=lambda rate: rate.seconds)
        found.rates += [RawRate(name, precision.value, backward, rate) for rate in rates[backward]]
        what, best = "forward + backward" if backward else "forward", rates[backward][0]
        print(f"  {what}: {milliseconds(best)}; the usual way {milliseconds(usual(rates[backward]))}", flush=True)
    ours = next(rate.way for rate in rates[False] if rate.way in (OURS, OPENVINO))  # `evaluate.forward`
    print(f"  our forward passes: {ours}", flush=True)
    block = Block.of(run, setting, micro_batch, engine if ours == OPENVINO else None)
    for method, case in CASES:
        if methods and method not in methods:
            continue
        try:
            found.results += compare(case(block), name, precision, setting.rounds, setting.pairs, found.references)
        except DisagreementError as error:
            print(f"  bench: {error}", flush=True)
            found.disagreements.append(str(error))
        gc.collect()  # a peer's copy of the network
    # The machine may have been slower at the start: the ceiling is the better one of both.
    for backward, measured in rates.items():
        best = measured[0]
        way = {**network_ways, **forward_alone}[best.way]
        again = rates_of({best.way: way}, (best.size,), setting.rounds, run, backward=backward)[0]
        found.ceilings.append(Ceiling(name, precision.value, backward, best, again, usual(measured)))
    for result in found.results:
        result.set_efficiency(found.ceilings)


def usual(rates: list[Rate]) -> Rate:
    """That of the usual way: as released, NCHW, one at a time."""
    return next(rate for rate in rates if (rate.way, rate.size) == (USUAL, 1))


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


def milliseconds(rate: Rate) -> str:
    """A rate for people."""
    return f"{rate.seconds * 1000:.1f} ms an input ({rate.way}, micro-batch {rate.size})"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception: what was measured is written
    sys.exit(main())
