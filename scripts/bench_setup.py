"""How much `bench.py` runs, on which networks, our way to them, and the ways to run them raw.

A ratio is one of times for the same passes, so that a short run shows it as well as a long one: fewer iterations, masks
and steps than the methods have, and fewer of them on VGG19. Each setting stands in the results.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from random_vgg19 import write_vgg19
from torch import Tensor, nn

from igos_bench.clock import Clock
from igos_bench.config import Device, Forward, Precision
from igos_bench.errors import UserError
from igos_bench.evaluate import Evaluator
from igos_bench.fold import fold_batch_norms
from igos_bench.network import Normalised
from igos_bench.openvino_forward import OpenVINOForward
from igos_bench.overrides import compose_config
from igos_bench.prepare import Run, prepare
from igos_bench.rates import Way

RESOLUTION = 28  # of the mask methods, Excitation BP and the coarse maps of the metric
GRAD_CAM_RESOLUTION = 14


@dataclass(frozen=True)
class Setting:
    """How much is run on one network.

    Attributes:
        images: Of the metric, which quantus runs as one batch; RISE has one.
        together: Of I-GOS, Mask and Integrated Gradients, whose images share micro-batches: a run's chunk has ten.
        batch: Images of Grad-CAM and Excitation BP.
        igos_iterations, mask_iterations: Of 15 and 500.
        path_steps: Of I-GOS and Integrated Gradients, of 20.
        masks: Of RISE, of 4,000.
        steps: Of the metric at 28, of 200.
        flips: Steps of the metric at 224 that quantus runs too: three times a divisor of 224 x 224.
        sizes: Of the micro-batch, raw.
        rounds: Pairs of times, and measurements of each raw rate.
        pairs: Of times, where those so far took less than `bench_compare.SHORT` seconds in all.
    """

    images: int
    together: int
    batch: int
    igos_iterations: int
    mask_iterations: int
    path_steps: int
    masks: int
    steps: int
    flips: int
    sizes: tuple[int, ...]
    rounds: int
    pairs: int


FULL = {
    "efficientnet_lite0": Setting(6, 10, 8, 1, 4, 14, 200, 24, 24, (1, 2, 4, 8, 16, 32), 2, 9),
    "vgg19": Setting(1, 4, 4, 1, 2, 6, 100, 12, 12, (1, 2, 4, 8, 16, 32), 2, 9),
}
QUICK = {
    "efficientnet_lite0": Setting(2, 4, 4, 1, 3, 6, 40, 8, 6, (1, 8), 2, 2),
    "vgg19": Setting(1, 1, 2, 1, 1, 2, 3, 2, 6, (1,), 1, 1),
}


def start(network: str, precision: Precision, setting: Setting, folder: Path, device: Device) -> Run:
    """The network and the first images of the sample; VGG19 with random weights, which are put into `folder`."""
    limit = max(setting.images, setting.together, setting.batch)
    words = [f"model={network}", f"precision={precision.value}", f"data.limit={limit}", f"device={device.value}"]
    if network == "vgg19":
        weights = folder / "vgg19.pt"
        if not weights.exists():
            write_vgg19(weights)
        words.append(f"model.weights={weights}")
    return prepare(compose_config([*words, "method=igos", f"resolution={RESOLUTION}"]))


@dataclass
class ClockedEvaluator(Evaluator):
    """An `Evaluator` that clocks what it counts: `seconds_in_passes` of the network, so far."""

    seconds_in_passes: float = field(default=0.0, init=False)

    def _halving(self, call: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        before, clock = self.seconds_in_passes, Clock(inputs[0].device)
        found = super()._halving(call, *inputs)
        self.seconds_in_passes = before + clock.lap()  # not +=: where memory ran out the halves have come through here
        return found


def evaluator(run: Run, method: str, micro_batch: int, forward: OpenVINOForward | None = None) -> ClockedEvaluator:
    """Our way to the network, as a run has it; every case has one of its own, which counts and clocks its passes."""
    classifier, precision = run.classifier, run.config.precision
    layers = classifier.layers_for(method)
    networks = (classifier.network, classifier.fast_network)
    return ClockedEvaluator(*networks, micro_batch, precision, layers, forward, classifier.in_float32)


def by_openvino(run: Run) -> OpenVINOForward | None:
    """What runs passes without a gradient with `evaluate.forward=openvino`; None, and a word, where that is refused."""
    try:
        return run.forward_network(Forward.openvino)
    except UserError as error:
        print(f"  without OpenVINO: {error}", flush=True)
        return None


# The ceiling.

USUAL, OURS, OPENVINO = "as released, NCHW", "ours", "ours, by OpenVINO"


def ways(run: Run) -> dict[str, Way]:
    """Every way to run the network raw: folded or not, both memory formats, in bf16 also weights of that; and ours."""
    network, precision = run.classifier.network, run.config.precision
    plain: dict[str, nn.Module] = {"as released": network}
    body, folded = fold_batch_norms(network.body)
    if folded:
        mean, std = (tensor.flatten().tolist() for tensor in (network.mean, network.std))
        plain["folded"] = Normalised(body, mean, std).eval().requires_grad_(False).to(run.device)
    found = {}
    for layout, memory_format in (("NCHW", torch.contiguous_format), ("channels_last", torch.channels_last)):
        for name, one in plain.items():
            other = copy.deepcopy(one).to(memory_format=memory_format)
            found[f"{name}, {layout}"] = Way(other, memory_format)
            if precision is Precision.bf16:
                cast = _InBfloat16(copy.deepcopy(other).bfloat16())
                found[f"{name}, {layout}, bf16 weights"] = Way(cast, memory_format)
    found[OURS] = Way(run.classifier.fast_network, torch.channels_last)
    return found


class _InBfloat16(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(inputs.bfloat16())
        return logits
