"""Configurations of real networks, and what the tests of classifiers measure on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from igos_bench.config import ModelConfig

CPU = torch.device("cpu")
SMALL = "squeezenet1_1"


def torchvision_config(architecture: str = SMALL, weights: str | None = None, sha256: str | None = None) -> ModelConfig:
    return ModelConfig(architecture, "torchvision", architecture, weights, sha256)


def random_images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def input_gradient(network: nn.Module, images: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(images)[:, :5].sum(), images)
    return gradient
