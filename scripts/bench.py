"""Seconds an image, ours against the tests' literal implementations: one process, alternating, results compared first.

    python scripts/bench.py [images=2] [rounds=3] [resolution=28]

The literal code (tests/literal.py) runs the network as it comes (batch norm unfolded, NCHW), one image and one path
point at a time; both sides have the same threads. A ratio is the median over rounds of theirs / ours, with the range.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import literal  # noqa: E402

from igos_bench.batch import generator  # noqa: E402
from igos_bench.config import RunConfig  # noqa: E402
from igos_bench.evaluate import Evaluator  # noqa: E402
from igos_bench.images import stream  # noqa: E402
from igos_bench.methods.igos import Igos  # noqa: E402
from igos_bench.metrics import deletion_insertion  # noqa: E402
from igos_bench.overrides import compose_config  # noqa: E402
from igos_bench.prepare import Run, prepare  # noqa: E402


@dataclass
class Options:
    """What to time: the first `images` of the sample, `rounds` pairs, at `resolution`."""

    images: int = 2
    rounds: int = 3
    resolution: int = 28


@dataclass
class Case:
    """Two ways to one result for all images; `compare` says how far apart they are, or raises."""

    name: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    compare: Callable[[], str]


def main() -> None:
    """Compare, then time, every case."""
    options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_cli()))
    assert isinstance(options, Options)
    config: RunConfig = compose_config([f"data.limit={options.images}", f"resolution={options.resolution}"])
    run = prepare(config)
    print(
        f"{run.classifier.name}, {run.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {options.images} images at {options.resolution}, {options.rounds} rounds"
    )
    for case in cases(run):
        print(f"{case.name}: {case.compare()}", flush=True)
        pairs = [(seconds(case.ours), seconds(case.theirs)) for _ in range(options.rounds)]
        ratios = [theirs / ours for ours, theirs in pairs]
        ours, theirs = (statistics.median(column) / options.images for column in zip(*pairs, strict=True))
        print(
            f"{case.name}: ours {ours:.2f} s, literal {theirs:.2f} s an image: "
            f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def cases(run: Run) -> list[Case]:
    """I-GOS and the metric."""
    sources = run.images
    decoded = stream(
        sources, preprocessing=run.config.preprocessing, max_pixels=run.config.data.max_pixels, workers=1, ahead=4
    )
    images = torch.stack([image for _, image in decoded if isinstance(image, Tensor)]).to(run.device)
    evaluate = Evaluator(run.classifier.network, run.classifier.fast_network)
    # The fast network shares nothing with this one: its memory format is the library's.
    network = run.classifier.network.to(memory_format=torch.contiguous_format)
    targets = evaluate.logits(images).argmax(1)
    assert isinstance(run.method, Igos)
    baselines = run.method.baseline(images)
    resolution = run.config.resolution

    def igos(iterations: int) -> Tensor:
        generators = [generator(0, "igos", source.image_id) for source in sources]
        method = Igos(iterations=iterations)
        return method(
            evaluate, images, targets,
            baselines=baselines, resolution=resolution, generators=generators, run_generator=generator(0, "igos"),
        )  # fmt: skip

    def literal_igos(iterations: int) -> Tensor:
        l1, l2 = Igos().lambdas[resolution]
        maps = [
            literal.igos(
                network, image, baseline, int(target), resolution=resolution, l1=l1, l2=l2, iterations=iterations,
                generator=literal.image_generator(0, "igos", source.image_id),
            )
            for image, baseline, target, source in zip(images, baselines, targets, sources, strict=True)
        ]  # fmt: skip
        return torch.stack(maps)

    maps = igos(iterations=2)

    def metric() -> list[tuple[float, float]]:
        curves = deletion_insertion(evaluate, run.protocol, images, targets, maps)
        return list(zip(curves.deletion_auc.tolist(), curves.insertion_auc.tolist(), strict=True))

    def literal_metric() -> list[tuple[float, float]]:
        curves = [
            literal.deletion_insertion(network, image, baseline, int(target), saliency_map)
            for image, baseline, target, saliency_map in zip(images, baselines, targets, maps, strict=True)
        ]
        return [(curve["deletion_auc"], curve["insertion_auc"]) for curve in curves]

    def compare_igos() -> str:
        # Accept-or-reject steps amplify rounding, so whole runs are compared by their areas in the tests' parity runs.
        difference = float((maps - literal_igos(iterations=2)).abs().max())
        if difference > 0.01:
            raise SystemExit(f"I-GOS differs from the literal code by {difference:.2g} after 2 iterations")
        return f"largest difference of a map's element after 2 iterations {difference:.1g}"

    def compare_metric() -> str:
        pairs = zip(metric(), literal_metric(), strict=True)
        difference = max(abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))
        if difference > 1e-4:
            raise SystemExit(f"the areas differ from the literal code's by {difference:.2g}")
        return f"largest difference of an area {difference:.1g}"

    iterations = Igos().iterations
    return [
        Case("I-GOS", lambda: igos(iterations), lambda: literal_igos(iterations), compare_igos),
        Case("deletion and insertion", metric, literal_metric, compare_metric),
    ]


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
