"""Grad-CAM: against pytorch-grad-cam before its resizing, and the literal implementation."""

from __future__ import annotations

import literal
import numpy as np
import pytest
import torch
import torchvision
from pytorch_grad_cam import GradCAM as PytorchGradCam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from toys import SmallConv, toy_image

from igos_bench.errors import UserError
from igos_bench.evaluate import Evaluator
from igos_bench.methods import get_method


def explain(evaluate: Evaluator, images: Tensor, targets: Tensor, resolution: int) -> Tensor:
    return get_method("grad_cam", {})(
        evaluate,
        images,
        targets,
        baselines=images,
        resolution=resolution,
        generators=[torch.Generator() for _ in images],
        run_generator=torch.Generator(),
    )


def peers_map(network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor) -> np.ndarray:
    """pytorch-grad-cam's map (B,h,w) before it is resized and normalised."""
    with PytorchGradCam(model=network, target_layers=[layer]) as cam:
        wanted = [ClassifierOutputTarget(int(target)) for target in targets]
        cam(input_tensor=images.clone().requires_grad_(), targets=wanted)
        (activations,), (gradients,) = cam.activations_and_grads.activations, cam.activations_and_grads.gradients
        raw = cam.get_cam_image(images, layer, wanted, activations.numpy(), gradients.numpy())
    return np.maximum(raw, 0)


def test_map_is_that_of_pytorch_grad_cam() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        network = torchvision.models.resnet18(weights=None).eval().requires_grad_(False)
    images = torch.stack([toy_image(seed, 224) for seed in range(3)])
    targets = torch.tensor([1, 4, 7])
    layer = network.layer3
    ours = explain(Evaluator(network, network, batch_size=2, layers={14: layer}), images, targets, 14)
    theirs = peers_map(network, layer, images, targets)
    assert ours.shape == (3, 1, 14, 14)
    for b in range(3):
        assert np.linalg.norm(theirs[b]) > 0
        assert np.linalg.norm(ours[b, 0].numpy() - theirs[b]) < 1e-4 * np.linalg.norm(theirs[b])


def test_map_equals_the_literal_one_alone_and_in_a_batch() -> None:
    network = SmallConv(seed=0).double()
    layer = network.features
    evaluate = Evaluator(network, network, batch_size=2, layers={32: layer})
    images = torch.stack([toy_image(seed) for seed in range(3)]).double()
    targets = torch.tensor([0, 1, 4])
    together = explain(evaluate, images, targets, 32)
    assert (evaluate.forwards, evaluate.backwards) == (3, 3)
    for b in range(3):
        theirs = literal.grad_cam(network, layer, images[b], int(targets[b]))
        assert (together[b] - theirs).abs().max() < 1e-12 * max(1, theirs.abs().max())
        one = slice(b, b + 1)
        assert torch.equal(together[one], explain(evaluate, images[one], targets[one], 32))
    assert together.max() > 0 == together.min()


def test_hooks_are_gone_even_after_an_exception() -> None:
    network = SmallConv(seed=0)
    evaluate = Evaluator(network, network, layers={32: network.features})
    images = toy_image(0)[None]
    with pytest.raises(RuntimeError):
        explain(evaluate, images[:, :2], torch.tensor([0]), 32)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_resolution_without_a_layer_is_named() -> None:
    network = SmallConv(seed=0)
    evaluate = Evaluator(network, network, layers={14: network.features, 28: network.features})
    with pytest.raises(UserError, match="grad_cam has no layer of this model at resolution 7; available: 28, 14"):
        explain(evaluate, toy_image(0)[None], torch.tensor([0]), 7)
