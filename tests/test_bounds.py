"""Where activations cannot overflow, and what becomes of NaN where they can."""

from __future__ import annotations

import math
import warnings

import pytest
import timm
import torch
import torchvision
from classifiers import CPU
from torch import Tensor, fx, nn
from torch.nn import functional as F

from igos_bench.bounds import bounds
from igos_bench.config import Precision
from igos_bench.errors import ImageError
from igos_bench.evaluate import Evaluator
from igos_bench.fast import FastNetwork, speed_up
from igos_bench.fold import fold_batch_norms
from igos_bench.network import Normalised
from igos_bench.onednn import FusedConvolution

LARGE = 1e30


class BreaksBetween(nn.Module):
    """Of grey images: finite logits for all but those between 0.03 and 0.22, where inf - inf comes into being."""

    def __init__(self, rectify: type[nn.Module]) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(16)  # of a random image: some 0.5 everywhere
        self.hat, self.enlarged = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)
        self.huge, self.difference = nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
        self.first, self.second, self.third = rectify(), rectify(), rectify()
        self.head = nn.Linear(5, 2)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.hat.weight.copy_(torch.full((3, 3, 1, 1), 1 / 3))
            self.hat.bias.copy_(-torch.tensor([0.0, 0.125, 0.25]))
            self.enlarged.weight.copy_(LARGE * torch.tensor([1.0, -2.0, 1.0]).view(1, 3, 1, 1).expand(2, 3, 1, 1))
            self.enlarged.bias.fill_(-0.03 * LARGE)  # a hat from 0 over 0.125 to 0.25, but for its brim
            self.huge.weight.copy_(3e38 * torch.eye(2).view(2, 2, 1, 1))
            self.difference.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).view(2, 2, 1, 1))
            self.head.weight.copy_(torch.randn(2, 5, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        seen = self.pool(images)
        enlarged = self.second(self.enlarged(self.first(self.hat(seen))))
        broken = self.third(self.difference(self.huge(enlarged)))
        logits: Tensor = self.head(torch.cat([seen, broken], 1).mean((2, 3)))
        return logits


def grey(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 224, 224).contiguous()


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
@pytest.mark.parametrize("rectify", [nn.ReLU, nn.ReLU6])
def test_nan_between_image_and_baseline_is_no_probability(rectify: type[nn.Module], precision: Precision) -> None:
    network = Normalised(BreaksBetween(rectify), [0.0] * 3, [1.0] * 3).eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast, _ = speed_up(network, CPU, precision)
    assert isinstance(fast, FastNetwork) and any(isinstance(module, FusedConvolution) for module in fast.modules())
    ends, path = grey(0.0, 1.0), grey(0.0, 0.125, 1.0)
    assert network(path).isnan().any(1).tolist() == [False, True, False]
    evaluate = Evaluator(network, fast, precision=precision)
    exact = network(ends).softmax(1)[:, 0]
    torch.testing.assert_close(evaluate.probability(ends, torch.tensor([0, 0])), exact, rtol=0.02, atol=0)
    for ask in (evaluate.probability, evaluate.gradient):
        with pytest.raises(ImageError, match="the network's logits are NaN or infinite for 1 of 3 inputs"):
            ask(path, torch.tensor([0, 0, 0]))


class Wired(nn.Module):
    """Two convolutions of one channel, 2 x + 1 and -3 x."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.thrice = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, (1, 3), padding=(0, 1), bias=False)
        self.relu, self.relu6, self.pool = nn.ReLU(), nn.ReLU6(), nn.MaxPool2d(2)
        nn.init.constant_(self.twice.weight, 2)
        nn.init.constant_(self.twice.bias, -1)
        nn.init.constant_(self.thrice.weight, -1)

    def forward(self, x: Tensor) -> Tensor:
        doubled = self.pool(self.relu(self.twice(x)))  # 2 * 5 + 1
        summed = self.thrice(doubled) + doubled  # 3 * 11 + 11
        clipped = self.relu6(summed)
        return F.relu6(self.thrice(clipped)).sigmoid() * clipped


def test_bounds_by_hand() -> None:
    traced, _ = fold_batch_norms(Wired().eval().requires_grad_(False))
    found = list(bounds(traced, 5.0).values())
    assert found == [5, 11, 11, 11, 33, 44, 6, 18, 6, math.inf, math.inf, math.inf]
    assert bounded(traced, 2e36)[:7] == [True] * 3 + [True] + [False] * 3
    assert bounded(traced, math.nan) == [False] * 12


def bounded(traced: fx.GraphModule, largest: float) -> list[bool]:
    return [math.isfinite(bound) for bound in bounds(traced, largest).values()]


def test_they_hold() -> None:
    """Of a real network's convolutions, on images."""
    torch.manual_seed(0)
    traced, _ = fold_batch_norms(timm.create_model("tf_efficientnet_lite0").eval().requires_grad_(False))
    found = bounds(traced, 1.0)
    seen: dict[fx.Node, float] = {}

    class Look(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            outputs = super().run_node(n)
            if isinstance(outputs, Tensor):
                seen[n] = float(outputs.abs().max())
            return outputs

    Look(traced).run(torch.rand(1, 3, 224, 224) * 2 - 1)
    assert len(seen) > 150 and all(found[node] >= largest for node, largest in seen.items())


@pytest.mark.parametrize("build", [lambda: timm.create_model("tf_efficientnet_lite0"), torchvision.models.mobilenet_v2])
def test_every_relu6_of_the_usual_networks_is_in_its_convolution(build: object) -> None:
    network = Normalised(build(), [0.5] * 3, [0.25] * 3).eval().requires_grad_(False)  # type: ignore[operator]
    fast, _ = speed_up(network, CPU)
    assert isinstance(fast, FastNetwork) and isinstance(fast.body, fx.GraphModule)
    called = {type(fast.body.get_submodule(str(n.target))) for n in fast.body.graph.nodes if n.op == "call_module"}
    assert not {kind for kind in called if "ReLU" in kind.__name__} and FusedConvolution in called
