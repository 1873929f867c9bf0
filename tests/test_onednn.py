"""oneDNN's calls: the same outputs and gradients as torch's own convolution and ReLU, of every kind of convolution."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, fx, nn
from torch.nn import functional as F

from igos_bench.fold import fold_batch_norms
from igos_bench.fuse import fuse
from igos_bench.onednn import FusedConvolution

KINDS = {
    "3x3": lambda: nn.Conv2d(6, 8, 3, padding=1),
    "1x1": lambda: nn.Conv2d(6, 8, 1, bias=False),
    "1x3": lambda: nn.Conv2d(6, 8, (1, 3), padding=(0, 1)),
    "padded beyond the kernel": lambda: nn.Conv2d(6, 8, 1, padding=2),
    "strided": lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1),
    "strided on images": lambda: nn.Conv2d(3, 8, 7, stride=2, padding=3),
    "strided on images, two strides": lambda: nn.Conv2d(3, 8, (3, 5), stride=(2, 3), padding=(0, 1)),
    "strided 1x1 on images": lambda: nn.Conv2d(3, 8, 1, stride=2),
    "strided 1x1": lambda: nn.Conv2d(6, 8, 1, stride=2),
    "grouped": lambda: nn.Conv2d(6, 8, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(6, 6, 5, padding=2, groups=6),
    "strided depthwise": lambda: nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6),
    "depthwise, two strides": lambda: nn.Conv2d(6, 6, 5, stride=(2, 3), padding=2, groups=6),
    "same": lambda: Conv2dSame(6, 8, 3, stride=2),
    "same on images": lambda: Conv2dSame(3, 8, 3, stride=2),
    "same depthwise": lambda: Conv2dSame(6, 6, 5, stride=2, groups=6),
}
RECTIFIERS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Sequential,
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": nn.ReLU6,
}


def fused(network: nn.Module, dtype: torch.dtype = torch.float32) -> tuple[fx.GraphModule, int]:
    traced, _ = fold_batch_norms(network)
    return traced, fuse(traced, dtype, largest_input=100)


def run(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    outputs = network(images)
    weights = torch.linspace(0.5, 1.5, outputs.numel()).view(outputs.shape).to(outputs)
    (gradient,) = torch.autograd.grad((outputs * weights).sum(), images)
    return outputs.detach(), gradient


@pytest.mark.parametrize("size", [(12, 12), (13, 10)])
@pytest.mark.parametrize("rectifier", RECTIFIERS)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_torchs(kind: str, rectifier: str, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(KINDS[kind](), RECTIFIERS[rectifier]()).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2)
    images = torch.randn(2, network[0].in_channels, *size, generator=generator)
    traced, count = fused(network)
    assert count == 1 and isinstance(next(traced.children()), FusedConvolution)
    outputs, gradient = run(network, images)
    for _ in range(2):  # the second time with what was kept from the first
        found, found_gradient = run(traced, images)
        torch.testing.assert_close(found, outputs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found_gradient, gradient, rtol=1e-4, atol=1e-3)
    low, low_gradient = run(fused(network, torch.bfloat16)[0], images)
    assert low.dtype == torch.bfloat16 and low_gradient.dtype == torch.float32
    assert (low - outputs).norm() < 0.02 * outputs.norm()
    difference = (low_gradient - gradient).abs().median()  # a few ReLUs are the other way
    assert difference < 0.02 * gradient.abs().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_nan_stays_nan_behind_a_relu(kind: str, dtype: torch.dtype) -> None:
    """oneDNN's own ReLU makes a 0 of it, and the network would go on to a probability."""
    network = nn.Sequential(KINDS[kind](), nn.ReLU()).eval().requires_grad_(False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    images = torch.zeros(2, network[0].in_channels, 12, 12)
    images[0, 0, 6, 6] = math.nan
    traced, _ = fused(network, dtype)
    assert isinstance(next(traced.children()), FusedConvolution) and len(list(traced.children())) == 1
    assert traced(images).isnan()[network(images).isnan()].all(), "a kernel that is padded with zeros makes more"


class Two(nn.Module):
    """Two convolutions, put together by `wire`."""

    def __init__(self, wire: Callable[[Two, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU()
        self.wire = wire

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.wire(self, images)
        return outputs


@pytest.mark.parametrize(
    "wire",
    [
        lambda two, x: two.second(two.relu(two.first(x))),
        lambda two, x: two.relu(two.first(x)) + two.relu(two.second(x)),  # one gradient for both
        lambda two, x: (lambda y: two.second(y) * y)(F.relu(two.first(x))),
        lambda two, x: (lambda y: two.second(two.relu(y)) + y)(two.first(x)),  # the ReLU is not the only reader
        lambda two, x: two.first(torch.relu(two.first(x))),  # one convolution in two places
        lambda two, x: two.second(two.first(x).add_(1).relu()),
        lambda two, x: F.relu6(two.second(F.max_pool2d(two.relu(two.first(x)), 2))),
    ],
    ids=["chain", "sum", "product", "before and after", "shared", "in place", "pooled"],
)
def test_wherever_the_convolutions_stand(wire: Callable[[Two, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    network = Two(wire).eval().requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    traced, count = fused(network)
    assert count == 2
    images = torch.randn(2, 3, 8, 8)
    for found, expected in zip(run(traced, images), run(network, images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(3, 4, 3, dilation=2),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 4, 3, padding="same"),
    ],
    ids=["dilated", "reflected", "by name"],
)
def test_a_convolution_of_another_kind_stays(convolution: nn.Module) -> None:
    traced, count = fused(nn.Sequential(convolution, nn.ReLU()).eval().requires_grad_(False))
    assert count == 0
    images = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(traced(images), convolution(images).relu())
