"""The faster equal of a network: checked against it, left out where it is none, and its layers still to be seen."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import timm
import torch
import torchvision
from classifiers import CPU, input_gradient, random_images
from test_fold import shake_batch_norms
from torch import Tensor, fx, nn

from igos_bench import onednn
from igos_bench.config import Precision
from igos_bench.evaluate import Evaluator
from igos_bench.fast import FastNetwork, speed_up
from igos_bench.fold import fold_batch_norms
from igos_bench.network import Normalised
from igos_bench.onednn import FusedConvolution
from igos_bench.overrides import compose_config
from igos_bench.prepare import prepare


def normalised(body: nn.Module) -> Normalised:
    return Normalised(body, [0.5] * 3, [0.25] * 3).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vgg11() -> Normalised:
    """The largest one by far, of which each test would make 133 million random numbers."""
    return normalised(shake_batch_norms(torchvision.models.vgg11()))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("build", ["resnet18", "vgg11", "mobilenet_v3_small", "densenet121", "vit_b_32"])
def test_it_computes_what_the_network_does(build: str) -> None:
    network = normalised(shake_batch_norms(torchvision.models.get_model(build, weights=None)))
    fast, folded = speed_up(network, CPU)
    assert folded == any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert any(isinstance(module, FusedConvolution) for module in fast.modules())
    images = random_images()
    torch.testing.assert_close(fast(images), network(images), rtol=1e-4, atol=1e-4)
    gradient = input_gradient(network, images)
    assert (input_gradient(fast, images) - gradient).norm() <= 2e-2 * gradient.norm()  # 0 in an untrained ViT


def test_bfloat16_is_as_near_as_autocast_and_float32_comes_out() -> None:
    torch.manual_seed(0)
    network = normalised(timm.create_model("tf_efficientnet_lite0"))
    fast, _ = speed_up(network, CPU, Precision.bf16)
    images, targets = random_images(8), torch.arange(8)  # a logit's last digit is as large as what is looked for
    expected, autocast, found = (
        evaluate.gradient(images, targets, of="logit")
        for evaluate in (
            Evaluator(network, network),
            Evaluator(network, network, precision=Precision.bf16),
            Evaluator(network, fast, precision=Precision.bf16),
        )
    )
    for ours, usual, exact in zip(found, autocast, expected, strict=True):
        assert ours.dtype == torch.float32 and not torch.equal(ours, exact)
        assert (ours - exact).norm() < 1.5 * (usual - exact).norm()


@pytest.mark.parametrize(
    ("library", "architecture", "layers"),
    [
        (timm.create_model, "tf_efficientnet_lite0", ["blocks.1.0.bn1.act", "blocks.4.2", "blocks.5.0.bn1.act"]),
        (torchvision.models.get_model, "resnet18", ["relu", "layer3", "layer2.0"]),
        (torchvision.models.get_model, "vgg11", ["features.1", "features.9"]),
    ],
)
def test_layers_are_seen_through_it(library: object, architecture: str, layers: list[str]) -> None:
    network = normalised(shake_batch_norms(library(architecture)))  # type: ignore[operator]
    fast, _ = speed_up(network, CPU, layers=layers)
    assert isinstance(fast, FastNetwork)
    images, targets = random_images(), torch.tensor([3, 5])
    for layer in layers:
        module = network.body.get_submodule(layer)
        assert fast.tapped(layer) is not None
        expected = Evaluator(network, network).activations(images, targets, module)
        calls: list[int] = []
        handle = module.register_forward_hook(lambda *_: calls.append(1))  # noqa: B023
        found = Evaluator(network, fast).activations(images, targets, module)
        handle.remove()
        assert not calls, "the network itself was run"
        for ours, theirs in zip(found, expected, strict=True):
            # Rounding moves a few activations over a ReLU's kink: they are few, and the others agree.
            assert (ours - theirs).abs().median() < 1e-4 * theirs.abs().mean()
            assert (ours - theirs).norm() < 2e-2 * theirs.norm()


def test_a_layer_that_folding_changed_is_read_in_the_network() -> None:
    network = normalised(shake_batch_norms(torchvision.models.resnet18()))
    fast, _ = speed_up(network, CPU, layers=["layer1.0.conv1", "layer1.0.bn1"])
    assert isinstance(fast, FastNetwork)
    for layer in ("layer1.0.conv1", "layer1.0.bn1"):  # before its batch norm, and before its ReLU: gone
        assert fast.tapped(layer) is None
        module = network.body.get_submodule(layer)
        activations, _ = Evaluator(network, fast).activations(random_images(), torch.tensor([3, 5]), module)
        expected, _ = Evaluator(network, network).activations(random_images(), torch.tensor([3, 5]), module)
        assert torch.equal(activations, expected)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 8, stride=8)
        self.batch_norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.batch_norm(self.convolution(images)).mean((2, 3))
        return features if features.sum() > 0 else features + 1


def test_untraceable_network_stays_unfolded() -> None:
    network = normalised(Untraceable())
    with pytest.warns(UserWarning, match="batch norm is not folded: the network cannot be traced"):
        assert speed_up(network, CPU) == (network, False)


@pytest.mark.parametrize("parameter", ["conv_stem.weight", "blocks.3.1.conv_pw.weight", "conv_head.weight"])
def test_bfloat16_that_is_wrong_stays_plain(parameter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = prepare(compose_config(["data.limit=1"])).classifier.network

    def halved(network: nn.Module, layers: Collection[str] = ()) -> tuple[fx.GraphModule, int]:
        folded, count = fold_batch_norms(network, layers)
        calls.append(1)
        if len(calls) == 2:  # the one for bfloat16
            folded.get_parameter(parameter).data *= 0.5
        return folded, count

    calls: list[int] = []
    monkeypatch.setattr("igos_bench.fast.fold_batch_norms", halved)
    with pytest.warns(UserWarning, match="left as it is: made faster, its (logits|gradient) .* in bfloat16"):
        assert speed_up(network, CPU, Precision.bf16) == (network, False)


@pytest.mark.filterwarnings("error")
def test_first_convolutions_stay_in_float32_without_batch_norm_or_onednn(
    vgg11: Normalised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VGG19 on a GPU."""
    monkeypatch.setattr(onednn, "is_available", lambda dtype: False)
    fast, folded = speed_up(vgg11, CPU, Precision.bf16)
    assert fast is not vgg11 and not folded
    images = random_images()
    seen: list[torch.dtype] = []
    for name, module in fast.named_modules():
        if name.endswith((".convolution", ".features.3")):
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        fast(images)
    assert seen == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize(
    ("parameter", "factor", "message"),
    [
        ("classifier.bias", 1.001, r"made faster, its logits move by 0.00"),
        ("conv_stem.weight", -1.0, "made faster, its logits move by"),
    ],
)
def test_moved_logits_stay_unfolded(
    monkeypatch: pytest.MonkeyPatch, parameter: str, factor: float, message: str
) -> None:
    def wrong(network: nn.Module, layers: Collection[str] = ()) -> tuple[fx.GraphModule, int]:
        folded, count = fold_batch_norms(network, layers)
        folded.get_parameter(parameter).data *= factor
        return folded, count

    monkeypatch.setattr("igos_bench.fast.fold_batch_norms", wrong)
    body = timm.create_model("tf_efficientnet_lite0")
    body.classifier.bias.data += 1
    network = normalised(body)
    with pytest.warns(UserWarning, match=message):
        assert speed_up(network, CPU) == (network, False)


def test_a_wrong_gradient_stays_unfolded(vgg11: Normalised, monkeypatch: pytest.MonkeyPatch) -> None:
    right = FusedConvolution.input_gradient
    monkeypatch.setattr(FusedConvolution, "input_gradient", lambda self, *words: 1.1 * right(self, *words))
    with pytest.warns(UserWarning, match="its gradient moves by"):
        assert speed_up(vgg11, CPU) == (vgg11, False)
