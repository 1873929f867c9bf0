"""The network: normalisation, what is no classifier, and layers by resolution."""

from __future__ import annotations

import pytest
import torch
from classifiers import CPU, random_images, torchvision_config
from torch import nn

from igos_bench.errors import UserError
from igos_bench.models import load_classifier
from igos_bench.network import Normalised, trial


def normalised(body: nn.Module) -> Normalised:
    return Normalised(body, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).eval()


def test_normalisation_is_inside() -> None:
    network = Normalised(nn.Identity(), (0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    image = random_images(1)
    expected = torch.stack([(image[0, 0] - 0.1) / 0.5, image[0, 1] - 0.2, (image[0, 2] - 0.3) / 2])[None]
    torch.testing.assert_close(network(image), expected)


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (nn.Conv2d(3, 2, 1), r"its output has shape \(1, 2, 224, 224\)"),
        (nn.Linear(100, 10), "it failed with RuntimeError"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 1)), r"its output has shape \(1, 1\)"),
    ],
    ids=["map", "other size", "one output"],
)
def test_not_a_classifier(network: nn.Module, found: str) -> None:
    with pytest.raises(UserError, match=rf"is no classifier of 224 x 224 images: .*{found}"):
        trial(torchvision_config(), normalised(network))


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
    config.layers = {"grad_cam": {resolution: layer}}
    with pytest.raises(UserError, match=rf"model\.layers\.grad_cam=\{{28: {layer}\}}: .*{message}"):
        load_classifier(config, CPU)
