"""Random weights of VGG19 under which it looks at the image.

torchvision's own random VGG19 gives every image the same probabilities to three digits: a gradient is rounding, I-GOS
moves nothing, and two results agree by being empty. Here every channel is standardised over a few photographs, as
batch norm would do it, and the logits are scaled up, so that the network is as sure as a trained one.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from igos_bench.config import DataConfig, Preprocessing
from igos_bench.data import read_manifest
from igos_bench.images import read_image
from igos_bench.network import Normalised
from igos_bench.perturb import IMAGENET_MEAN, IMAGENET_STD

PHOTOGRAPHS = 4
GAIN = 20.0  # of the logits: probabilities of 0.4 to 0.9 on the photographs


def write_vgg19(path: Path, seed: int = 0) -> None:
    """Write such weights, which `model.weights=PATH` reads."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        body = torchvision.models.vgg19(weights=None)
    network = Normalised(body, IMAGENET_MEAN, IMAGENET_STD).eval().requires_grad_(False)
    sources = read_manifest(DataConfig(limit=PHOTOGRAPHS)).take(PHOTOGRAPHS)
    decoded = [read_image(source, Preprocessing.plain, max_pixels=10**8) for source in sources]
    images = torch.stack([image for image in decoded if isinstance(image, Tensor)])
    standardised(network, images)
    head = body.classifier[-1]
    assert isinstance(head, nn.Linear)
    head.weight.mul_(GAIN)
    head.bias.mul_(GAIN)
    torch.save(body.state_dict(), path)


def standardised(network: nn.Module, images: Tensor) -> None:
    """Change the convolutions so that, over these images, each of their channels has mean 0 and deviation 1."""
    hooks = [m.register_forward_hook(_standardise) for m in network.modules() if isinstance(m, nn.Conv2d)]
    network(images)
    for hook in hooks:
        hook.remove()


def _standardise(convolution: nn.Conv2d, _inputs: object, outputs: Tensor) -> Tensor:
    """Forward hook: what has been standardised before is what the next convolution sees."""
    deviation, mean = torch.std_mean(outputs, (0, 2, 3))
    assert convolution.bias is not None
    convolution.weight /= deviation.view(-1, 1, 1, 1)
    convolution.bias.sub_(mean).div_(deviation)
    return (outputs - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1)
