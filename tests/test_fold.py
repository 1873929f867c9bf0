"""Folding: the same function, of the arrangements that can be folded and no others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from classifiers import input_gradient, random_images
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn

from igos_bench.fold import fold_batch_norms
from igos_bench.weights import hash_weights


def shake_batch_norms(network: nn.Module) -> nn.Module:
    """Statistics and affine parameters as training might leave them, negative gammas among them."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = torch.empty(module.num_features).uniform_(-1.5, 1.5, generator=generator)
            module.bias.data = torch.empty(module.num_features).uniform_(-0.5, 0.5, generator=generator)
            module.running_mean = torch.empty(module.num_features).uniform_(-0.5, 0.5, generator=generator)
            module.running_var = torch.empty(module.num_features).uniform_(0.5, 2.0, generator=generator)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("build", "share"),
    [
        (lambda: torchvision.models.resnet18(), "all"),
        (lambda: torchvision.models.mobilenet_v3_small(), "all"),
        (lambda: timm.create_model("tf_efficientnet_lite0"), "all"),
        (lambda: timm.create_model("resnet18"), "all"),
        (lambda: torchvision.models.densenet121(), "some"),  # half of its batch norms stand before the convolution
    ],
    ids=["resnet18", "mobilenet_v3_small", "lite0", "timm_resnet18", "densenet121"],
)
def test_folding_keeps_the_function(build: Callable[[], nn.Module], share: str) -> None:
    network = shake_batch_norms(build()).double()  # float64: what is left is the algebra
    folded, count = fold_batch_norms(network)
    total = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    left = sum(
        node.op == "call_module" and isinstance(folded.get_submodule(node.target), nn.BatchNorm2d)
        for node in folded.graph.nodes
    )
    assert count + left == total
    assert (left == 0) == (share == "all") and count > 0
    images = random_images(1).double()
    expected = network(images)
    torch.testing.assert_close(folded(images), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    gradient = input_gradient(network, images)
    assert (input_gradient(folded, images) - gradient).norm() < 1e-9 * gradient.norm()


class Pair(nn.Module):
    """A convolution and a batch norm, put together by `wire`."""

    def __init__(self, wire: Callable[[Pair, Tensor], Tensor]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.batch_norm = nn.BatchNorm2d(3)
        self.wire = wire

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.wire(self, images)
        return outputs


@pytest.mark.parametrize(
    ("wire", "count"),
    [
        (lambda pair, x: pair.batch_norm(pair.convolution(x)), 1),
        (lambda pair, x: pair.convolution(pair.batch_norm(x)), 0),
        (lambda pair, x: pair.batch_norm(pair.convolution(x).relu()), 0),
        (lambda pair, x: (lambda y: pair.batch_norm(y) + y)(pair.convolution(x)), 0),
        (lambda pair, x: pair.batch_norm(pair.convolution(x)) + pair.convolution(x), 0),
        (lambda pair, x: pair.batch_norm(pair.convolution(x)) + pair.batch_norm(x), 0),
    ],
    ids=["in order", "before", "after relu", "two readers", "shared convolution", "shared batch norm"],
)
def test_only_the_plain_arrangement_is_folded(wire: Callable[[Pair, Tensor], Tensor], count: int) -> None:
    network = shake_batch_norms(Pair(wire))
    folded, found = fold_batch_norms(network)
    assert found == count
    torch.testing.assert_close(folded(random_images()), network(random_images()), rtol=1e-4, atol=1e-5)


def test_batch_norm_without_statistics_stays() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)).eval()
    assert fold_batch_norms(network)[1] == 0


def test_a_batch_norm_that_would_lose_weights_stays() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().requires_grad_(False)
    network[1].weight[2] = 0
    assert fold_batch_norms(network)[1] == 0


def test_folding_does_not_touch_the_network() -> None:
    network = shake_batch_norms(torchvision.models.resnet18())
    before = hash_weights(network)
    fold_batch_norms(network)
    assert hash_weights(network) == before
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 20


def test_in_place_clip_is_relu6_to_the_bit() -> None:
    folded, _ = fold_batch_norms(timm.create_model("tf_efficientnet_lite0").eval())
    values = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 3.0, 6.0, 7.0, float("inf")])
    gradients, outputs = [], []
    for activation in (nn.ReLU6(inplace=True), folded.get_submodule("bn1")):
        inputs = values.clone().requires_grad_()
        output = activation(inputs * 1)
        outputs.append(output.detach())
        gradients.append(torch.autograd.grad((output * 2).sum(), inputs)[0])
    assert torch.equal(*outputs) and torch.equal(*gradients)


def test_a_gradient_that_another_branch_reads_is_not_overwritten() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
            self.batch_norms = nn.ModuleList(BatchNormAct2d(3, act_layer=nn.ReLU6) for _ in range(2))

        def forward(self, images: Tensor) -> Tensor:
            outputs: Tensor = self.batch_norms[0](self.first(images)) + self.batch_norms[1](self.second(images))
            return outputs  # the sum hands the same gradient to both

    network = shake_batch_norms(Sum())
    folded, count = fold_batch_norms(network)
    assert count == 2
    gradient = input_gradient(network, random_images(1))
    assert (input_gradient(folded, random_images(1)) - gradient).norm() < 1e-4 * gradient.norm()


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(12, 12), (13, 16), (3, 2)])
def test_same_padding_in_the_kernel(kernel_size: int, stride: int, size: tuple[int, int]) -> None:
    network = nn.Sequential(Conv2dSame(3, 4, kernel_size, stride)).double()
    folded, _ = fold_batch_norms(network)
    images = random_images(1).double()[:, :, : size[0], : size[1]]
    torch.testing.assert_close(folded(images), network(images), rtol=1e-12, atol=1e-12)
