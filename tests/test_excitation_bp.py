"""Excitation Backprop: against torchray, in closed form, and the networks that it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import timm
import torch
import torchvision
from classifiers import CPU, random_images
from test_fold import shake_batch_norms
from torch import Tensor, nn
from torch.nn import functional as F
from torchray.attribution import excitation_backprop as torchray
from torchvision.models.resnet import Bottleneck
from toys import toy_image

from igos_bench.config import Precision
from igos_bench.errors import UserError
from igos_bench.evaluate import Evaluator
from igos_bench.fast import speed_up
from igos_bench.methods import get_method
from igos_bench.methods.excitation_bp import winning_probability
from igos_bench.network import Normalised

VGG19_LAYERS = {224: "features.3", 112: "features.8", 28: "features.26", 14: "features.35"}
TWO = random_images(), torch.tensor([3, 5])


def explain(evaluate: Evaluator, images: Tensor, targets: Tensor, resolution: int) -> Tensor:
    return get_method("excitation_bp", {})(
        evaluate,
        images,
        targets,
        baselines=images,
        resolution=resolution,
        generators=[torch.Generator() for _ in images],
        run_generator=torch.Generator(),
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def frozen(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.norm() > 0
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


@pytest.fixture(scope="module")
def vgg19() -> nn.Module:
    with seeded(0):
        return frozen(torchvision.models.vgg19(weights=None))


@pytest.mark.parametrize(("resolution", "name"), VGG19_LAYERS.items())
def test_vgg19_is_torchrays(vgg19: nn.Module, resolution: int, name: str) -> None:
    image, target = toy_image(1, 224)[None], 281
    theirs = torchray.excitation_backprop(vgg19, image, target, name)
    evaluate = Evaluator(vgg19, vgg19, layers={resolution: vgg19.get_submodule(name)})
    ours = explain(evaluate, image, torch.tensor([target]), resolution)
    assert ours.shape == (1, 1, resolution, resolution)
    assert_close(ours, theirs)


def resnet50() -> nn.Module:
    """Seeded weights and batch norms, a third of their gammas negative."""
    with seeded(0):
        network = torchvision.models.resnet50(weights=None)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, -0.5, 1.0)
                nn.init.uniform_(module.bias, -0.1, 0.3)
                nn.init.uniform_(module.running_mean, -0.1, 0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return frozen(network)


def non_negative_sums(network: nn.Module) -> nn.Module:
    """Put a ReLU before every residual sum: torchray does not clamp its inputs."""
    for block in network.modules():
        if isinstance(block, Bottleneck):
            block.bn3 = nn.Sequential(block.bn3, nn.ReLU())
            if block.downsample is not None:
                block.downsample.append(nn.ReLU())
    return network


@pytest.mark.parametrize("layer", ["layer1", "layer3"])
def test_resnet50_is_torchrays_where_sums_are_not_negative(layer: str) -> None:
    image, target = toy_image(1, 224)[None], 281
    peers = torchray.update_resnet(non_negative_sums(resnet50()))
    assert any((module.weight < -0.1).any() for module in peers.modules() if isinstance(module, nn.BatchNorm2d))
    theirs = torchray.excitation_backprop(peers, image, target, layer)
    network = non_negative_sums(resnet50())  # as torchvision runs it: `out += identity`, ReLU in place
    resolution = theirs.shape[-1]
    evaluate = Evaluator(network, network, layers={resolution: network.get_submodule(layer)})
    assert_close(explain(evaluate, image, torch.tensor([target]), resolution), theirs.clamp(min=0))


def test_resnet50_is_torchrays_with_the_inputs_of_sums_clamped() -> None:
    """Sums of both signs: torchray's patch, with a backward pass in its place that clamps."""
    image, target = toy_image(1, 224)[None], 281

    class ClampedSum(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
            ctx.save_for_backward(left, right)
            return left + right

        @staticmethod
        def backward(ctx: Any, p: Tensor) -> tuple[Tensor, ...]:
            left, right = (tensor.clamp(min=0) for tensor in ctx.saved_tensors)
            total = left + right
            return tuple(torch.where(total > 0, p * side / total, 0) for side in (left, right))

    peers = torchray.update_resnet(resnet50())
    for module in peers.modules():
        if isinstance(module, Bottleneck):
            module.skip.forward = ClampedSum.apply
    theirs = torchray.excitation_backprop(peers, image, target, "layer3")
    network = resnet50()
    evaluate = Evaluator(network, network, layers={14: network.layer3})
    assert_close(explain(evaluate, image, torch.tensor([target]), 14), theirs.clamp(min=0))


class NonNegativeNet(nn.Module):
    """Non-negative weights and inputs: everything excites, so no probability is lost."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(3):
            self.first = nn.Conv2d(3, 4, 3)
            self.second = nn.Conv2d(4, 4, 3, padding=1)
            self.head = nn.Linear(4 * 9, 5)
        for module in (self.first, self.second, self.head):
            nn.init.uniform_(module.weight, 0.01, 1.0, generator=torch.Generator().manual_seed(1))
        self.relu = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        x = F.max_pool2d(x, 2)
        x = x + F.dropout(self.second(x), training=self.training)
        return self.head(F.adaptive_avg_pool2d(x, 3).flatten(1))


def test_probability_is_conserved_where_everything_excites() -> None:
    network = frozen(NonNegativeNet().double())
    images = torch.stack([toy_image(seed) for seed in range(3)]).double()
    evaluate = Evaluator(network, network, batch_size=2, layers={30: network.relu})
    targets = torch.tensor([0, 3, 4])
    maps = explain(evaluate, images, targets, 30)
    assert (maps.sum((1, 2, 3)) - 1).abs().max() < 1e-12
    assert maps.min() >= 0 and (evaluate.forwards, evaluate.backwards) == (3, 3)
    for b in range(3):
        one = slice(b, b + 1)
        assert (explain(evaluate, images[one], targets[one], 30) - maps[one]).abs().max() < 1e-12


def test_linear_layer_by_hand() -> None:
    """Weights [[2, -1, 1]], a = (1, 5, -3): the negative weight and the negative input get nothing."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Identity(), nn.Linear(4, 1)
            self.head.weight.copy_(torch.tensor([[2.0, -1.0, 1.0, 6.0]]))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x))

    with torch.no_grad():
        network = frozen(Head())
    a = torch.tensor([[1.0, 5.0, -3.0, 1.0]])
    p = winning_probability(network, network.layer, a, torch.tensor([0]))
    assert torch.allclose(p, torch.tensor([[0.25, 0.0, 0.0, 0.75]]))
    dead = winning_probability(network, network.layer, -a.abs(), torch.tensor([0]))
    assert torch.equal(dead, torch.zeros(1, 4))


def test_relu6_lets_p_through_where_it_is_saturated_and_residual_sums_are_clamped() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.relu = nn.Identity(), nn.ReLU6()
            self.head = nn.Linear(2, 1)
            self.head.weight.fill_(1.0)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(x)  # (N,4): two pairs
            return self.head(self.relu(x[:, :2] + x[:, 2:]))

    with torch.no_grad():
        network = frozen(Sum())
    a = torch.tensor([[6.0, 5.0, 3.0, -2.0]])  # sums 9 (saturated at 6) and 3
    p = winning_probability(network, network.layer, a, torch.tensor([0]))
    assert torch.allclose(p, torch.tensor([[6 / 9 * 6 / 9, 3 / 9, 6 / 9 * 3 / 9, 0.0]]))


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "resnet18", "densenet121", "mobilenetv2_100"])
def test_timms_networks_have_rules(architecture: str) -> None:
    with seeded(0):
        network = frozen(timm.create_model(architecture))
    layers = {
        "tf_efficientnet_lite0": ("blocks.5.0.bn1.act", 14),
        "resnet18": ("layer3.1.act2", 14),
        "densenet121": ("features.transition2.norm.act", 28),
        "mobilenetv2_100": ("blocks.5.0.bn1.act", 14),
    }
    name, resolution = layers[architecture]
    image = toy_image(1, 224)[None]
    logits = network(image)
    evaluate = Evaluator(network, network, layers={resolution: network.get_submodule(name)})
    ours = explain(evaluate, image, torch.tensor([5]), resolution)
    assert ours.shape == (1, 1, resolution, resolution)
    assert ours.sum() > 0 and ours.sum() < 1 + 1e-4
    assert torch.equal(network(image), logits)


@pytest.mark.parametrize(
    ("architecture", "layer", "message"),
    [
        ("efficientnet_b0", "blocks.5.0.bn1.act", r"no rule for silu, which runs in '\S+' \(SiLU\)"),
        ("seresnet18", "layer3", r"no rule for sigmoid, which runs in '\S+' \(Sigmoid\)"),
        ("vit_tiny_patch16_224", "patch_embed.proj", "no rule for .*, which runs in"),
        ("convnext_atto", "stages.1", r"no rule for layer_norm, which runs in '\S+' \(LayerNorm2d\)"),
    ],
)
def test_networks_without_a_rule_are_refused_by_name(architecture: str, layer: str, message: str) -> None:
    network = frozen(timm.create_model(architecture))
    evaluate = Evaluator(network, network, layers={14: network.get_submodule(layer)})
    with pytest.raises(UserError, match=message):
        explain(evaluate, toy_image(1, 224)[None], torch.tensor([0]), 14)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert torch.overrides._get_current_function_mode_stack() == []


class Doubled(torch.autograd.Function):
    """Invisible to a function mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Chain(nn.Module):
    def __init__(self, odd: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.odd, self.head = nn.ReLU(), odd, nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.odd(self.layer(x))).mean((2, 3))


class Module(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "Doubled": Doubled.apply,
    "hardtanh": F.hardtanh,
    "add": lambda x: x + 1,
    "leaky_relu": F.leaky_relu,
    "conv2d": lambda x: F.conv2d(x.detach()[:, :, :4, :4], x[:, :, :3, :3].transpose(0, 1)[:, :3].clone()),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_uses_are_refused_by_name(what: str) -> None:
    network = frozen(Chain(Module(ODD[what])))
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match=rf"no rule for (this use of )?{what}, which runs in 'odd' \(Module\)"):
        winning_probability(network, network.layer, images, torch.zeros(3, dtype=torch.long))


def test_what_is_changed_in_place_is_changed_under_every_name() -> None:
    def in_place(x: Tensor) -> Tensor:
        y = x.clone()
        y.add_(x)
        F.relu(y, inplace=True)
        return y

    def out_of_place(x: Tensor) -> Tensor:
        return F.relu(x.clone() + x)

    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = []
    for function in (in_place, out_of_place):
        with seeded(2):
            network = frozen(Chain(Module(function)))
        maps.append(winning_probability(network, network.layer, images, torch.zeros(3, dtype=torch.long)))
    assert maps[1].abs().sum() > 0
    assert torch.equal(*maps)


def test_what_lies_before_the_layer_may_be_anything() -> None:
    network = frozen(nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)))
    p = winning_probability(network, network[2], toy_image(0, 8)[None], torch.tensor([0]))
    assert p.shape == (1, 4, 6, 6)


def test_a_resolution_without_a_layer_is_named(vgg19: nn.Module) -> None:
    evaluate = Evaluator(vgg19, vgg19, layers={})
    with pytest.raises(UserError, match="excitation_bp has no layer of this model at resolution 28; available: none"):
        explain(evaluate, toy_image(0, 224)[None], torch.tensor([0]), 28)


@pytest.fixture(
    scope="module",
    params=[
        (timm.create_model, "tf_efficientnet_lite0", "blocks.4.2.bn1.act"),
        (torchvision.models.get_model, "resnet18", "layer2"),
        (torchvision.models.get_model, "vgg11_bn", "features.13"),
        (torchvision.models.get_model, "densenet121", "features.transition2"),
    ],
    ids=lambda trained: trained[1],
)
def trained(request: pytest.FixtureRequest) -> tuple[Normalised, str, Tensor]:
    """A network with gammas of both signs, which folding puts on the weights; a layer, and the maps of it."""
    library, architecture, layer = request.param
    network = Normalised(shake_batch_norms(library(architecture)), [0.5] * 3, [0.25] * 3).eval().requires_grad_(False)
    layers = {14: network.body.get_submodule(layer)}
    return network, layer, explain(Evaluator(network, network, layers=layers), *TWO, 14)


@pytest.mark.parametrize("is_fused", [True, False], ids=["fused", "folded alone"])
def test_the_fast_network_passes_p_down_as_the_trained_one_does(
    trained: tuple[Normalised, str, Tensor], is_fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_fused:
        monkeypatch.setattr("igos_bench.onednn.is_available", lambda dtype: False)
    network, layer, expected = trained
    module = network.body.get_submodule(layer)
    for precision, tolerance in ((Precision.fp32, 1e-2), (Precision.bf16, 0.15)):  # rounding moves kinks and maxima
        fast, folded = speed_up(network, CPU, precision, layers=[layer])
        assert folded
        evaluate = Evaluator(network, fast, precision=precision, layers={14: module})
        calls: list[int] = []
        handle = module.register_forward_hook(lambda *_: calls.append(1))  # noqa: B023
        maps = explain(evaluate, *TWO, 14)
        handle.remove()
        assert not calls, "the network itself was run"
        assert maps.dtype == torch.float32
        assert (maps - expected).norm() < tolerance * expected.norm(), precision


def test_what_the_fast_network_has_no_rule_for_is_named_as_it_was_trained() -> None:
    network = Normalised(timm.create_model("seresnet18"), [0.5] * 3, [0.25] * 3).eval().requires_grad_(False)
    fast, _ = speed_up(network, CPU, layers=["layer3"])
    evaluate = Evaluator(network, fast, layers={14: network.body.get_submodule("layer3")})
    with pytest.raises(UserError, match=r"no rule for sigmoid, which runs in 'body\.layer4\.\S+' \(Sigmoid\)"):
        explain(evaluate, random_images(), torch.tensor([3, 5]), 14)
