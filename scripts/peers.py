"""What other implementations make of the same images: captum, pytorch-grad-cam, torchray, quantus, tests/literal.py.

Each runs the network as its library makes it, `AsReleased`: batch norm unfolded, NCHW, for bf16 under autocast. The
literal ones go one image and one path point at a time; the others take batches as their users leave them. Where a peer
means something else by a word (torchray's RISE takes sigmoids of black images), it is asked so that it computes the
same thing, which the bench checks before it takes times.

torchray is CC BY-NC 4.0 and quantus LGPL: nothing of them is shipped.
"""

from __future__ import annotations

import copy
import logging
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import literal
import numpy as np
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from pytorch_grad_cam import GradCAM as PytorchGradCam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchray.attribution.excitation_backprop import excitation_backprop as torchray_excitation_backprop
from torchray.attribution.rise import rise as torchray_rise
from torchray_rules import add_rules

from igos_bench.config import Precision
from igos_bench.perturb import IMAGENET_MEAN


class AsReleased(nn.Module):
    """A network of its own as the library makes it, images (N,3,H,W) in [0, 1] -> logits (N,K) in float32.

    Attributes:
        searches_in_float32: Passes without a gradient are in float32 whatever the precision, as I-GOS's line search is.
        forwards: Inputs so far that had a forward pass alone.
        gradients: Inputs so far that had a forward pass for a backward one.
    """

    def __init__(self, network: nn.Module, precision: Precision, *, searches_in_float32: bool = False) -> None:
        super().__init__()
        self.searches_in_float32 = searches_in_float32
        self.network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
        self.precision = precision
        self.forwards = self.gradients = 0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        with self.autocast(images):
            logits = self.network(images)
        if logits.requires_grad:
            self.gradients += len(images)
        else:
            self.forwards += len(images)
        found: Tensor = logits.float()
        return found

    def autocast(self, images: Tensor) -> torch.autocast:
        rounds = self.precision is Precision.bf16 and (torch.is_grad_enabled() or not self.searches_in_float32)
        return torch.autocast(images.device.type, torch.bfloat16, enabled=rounds)


@dataclass(frozen=True)
class Subject:
    """What is explained: images and baselines (B,3,H,W), targets (B,), and the peers' network."""

    network: AsReleased
    images: Tensor
    baselines: Tensor
    targets: Tensor
    image_ids: list[str]

    def __iter__(self) -> Any:
        """Image (3,H,W), baseline (3,H,W), target, image id of each."""
        return iter(zip(self.images, self.baselines, self.targets.tolist(), self.image_ids, strict=True))


def literal_igos(subject: Subject, resolution: int, l1: float, l2: float, iterations: int, path_steps: int) -> Tensor:
    """Maps (B,1,r,r)."""
    maps = [
        literal.igos(
            subject.network, image, baseline, target, resolution=resolution, l1=l1, l2=l2, iterations=iterations,
            path_steps=path_steps, generator=literal.image_generator(0, "igos", image_id),
        )
        for image, baseline, target, image_id in subject
    ]  # fmt: skip
    return torch.stack(maps)


def literal_mask(subject: Subject, resolution: int, l1: float, l2: float, iterations: int) -> Tensor:
    """Maps (B,1,r,r)."""
    maps = [
        literal.mask_method(
            subject.network, image, baseline, target, resolution=resolution, l1=l1, l2=l2, iterations=iterations,
            generator=literal.image_generator(0, "mask", image_id),
        )
        for image, baseline, target, image_id in subject
    ]  # fmt: skip
    return torch.stack(maps)


def literal_deletion_insertion(subject: Subject, saliency_maps: Tensor, n_steps: int) -> Tensor:
    """Areas (B,2) of deletion and insertion."""
    curves = [
        literal.deletion_insertion(subject.network, image, baseline, target, saliency_map, n_steps_max=n_steps)
        for (image, baseline, target, _), saliency_map in zip(subject, saliency_maps, strict=True)
    ]
    return torch.tensor([[curve["deletion_auc"], curve["insertion_auc"]] for curve in curves])


def captum_integrated_gradients(subject: Subject, steps: int) -> Tensor:
    """Maps (B,1,H,W); an image at a time, its path as one batch, which is captum's default."""
    captum = CaptumIntegratedGradients(lambda inputs: subject.network(inputs).softmax(1))
    maps = [
        captum.attribute(image[None], baseline[None], target, n_steps=steps, method="riemann_right").sum(1)
        for image, baseline, target, _ in subject
    ]
    return torch.stack(maps).detach().float()


class _GradCam(PytorchGradCam):  # type: ignore[misc]  # untyped
    """Keeps the map as it is before it is resized and normalised."""

    raw: np.ndarray

    def get_cam_image(self, *args: Any, **options: Any) -> np.ndarray:
        self.raw = super().get_cam_image(*args, **options)
        return self.raw


def pytorch_grad_cam(subject: Subject, layer: str) -> Tensor:
    """Maps (B,1,h,w), all images as one batch."""
    module = subject.network.network.get_submodule(layer)
    # numpy has no bfloat16.
    with _GradCam(subject.network, [module], reshape_transform=lambda tensor: tensor.float()) as cam:
        targets = [ClassifierOutputTarget(target) for target in subject.targets.tolist()]
        cam(subject.images.clone().requires_grad_(), targets)  # parameters are frozen
        return torch.from_numpy(cam.raw)[:, None].relu()


def torchray_network(network: nn.Module, precision: Precision) -> AsReleased:
    """A network for torchray's Excitation BP; the rules in it would spoil other methods' gradients."""
    released = AsReleased(network, precision)
    add_rules(released)
    return released


def torchray_excitation_bp(subject: Subject, layer: str) -> Tensor:
    """Maps (B,1,h,w), all images as one batch; `subject.network` is from `torchray_network`."""
    module = subject.network.network.get_submodule(layer)
    with subject.network.autocast(subject.images):  # its backward pass calls the functions again
        maps: Tensor = torchray_excitation_backprop(subject.network, subject.images, subject.targets, module)
    return maps.float().clamp(min=0)


class _ShownForRise(nn.Module):
    """Images without the mean colour, which a mask of torchray then shows as black -> what its sigmoid makes f of."""

    def __init__(self, network: nn.Module, mean: Tensor) -> None:
        super().__init__()
        self.network, self.mean = network, mean

    def forward(self, inputs: Tensor) -> Tensor:
        probabilities: Tensor = self.network(inputs + self.mean).softmax(1)
        return probabilities.logit()


def torchray_rise_maps(subject: Subject, masks: Tensor, probability: float) -> Tensor:
    """Maps (B,1,H,W) with given masks (N,1,H,W), so that torchray need not even make them; its batch size of 32."""
    mean = subject.images.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
    network = _ShownForRise(subject.network, mean)
    found = [
        torchray_rise(network, (image - mean)[None], filter_masks=masks, num_masks=len(masks))[:, target]
        for image, _, target, _ in subject
    ]
    return torch.stack(found) / probability


@torch.no_grad()
def rise_in_batches(subject: Subject, masks: Tensor, probability: float) -> Tensor:
    """Maps (B,1,H,W) with given masks (N,1,H,W), a hundred at a time, as RISE's authors run it."""
    mean = subject.images.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
    maps = []
    for image, _, target, _ in subject:
        total = torch.zeros_like(image[:1])
        for part in masks.split(100):
            probabilities = subject.network(image * part + (1 - part) * mean).softmax(1)[:, target]
            total += (probabilities.view(-1, 1, 1, 1) * part).sum(0)
        maps.append(total / (len(masks) * probability))
    return torch.stack(maps)


def quantus_pixel_flipping(subject: Subject, saliency_maps: Tensor, n_steps: int) -> Tensor:
    """Areas (B,2) of deletion and insertion by quantus's PixelFlipping, all images as one batch.

    It has deletion alone; insertion is the same with image and baseline exchanged. It flips colours one by one, those
    of a pixel next to each other in the ranking, and leaves out the curve's first point, which is added here.

    Args:
        subject: Likewise.
        saliency_maps: (B,1,H,W), of the images' size.
        n_steps: 3HW / n_steps features are flipped at once, a number that quantus wants to divide HW.
    """
    from quantus import PixelFlipping  # seconds to import

    warnings.filterwarnings("ignore", module="quantus")  # one a step where nothing changed
    logging.getLogger("quantus").setLevel(logging.ERROR)
    images, baselines = (tensor.cpu().numpy() for tensor in (subject.images, subject.baselines))
    areas = []
    for shown, hidden in ((images, baselines), (baselines, images)):
        metric = PixelFlipping(
            features_in_step=images[0].size // n_steps,
            perturb_func=partial(_replace, by=hidden.reshape(len(hidden), -1)),
            normalise=False,
            disable_warnings=True,
        )
        curves = metric(
            model=subject.network,
            x_batch=shown,
            y_batch=subject.targets.cpu().numpy(),
            a_batch=saliency_maps.cpu().numpy(),
            softmax=True,
            channel_first=True,
            device=str(subject.images.device),
        )
        with torch.no_grad():
            start = subject.network(torch.from_numpy(shown).to(subject.images.device))
            first = start.softmax(1).gather(1, subject.targets[:, None]).cpu()
        curve = np.concatenate([first.numpy(), np.array(curves)], axis=1)
        areas.append(np.trapezoid(curve, dx=1 / n_steps, axis=1))
    return torch.from_numpy(np.stack(areas, axis=1)).float()


def _replace(arr: np.ndarray, indices: np.ndarray, by: np.ndarray, **_: Any) -> np.ndarray:
    """Arrays (B,F) with the features at indices (B,I) replaced by those of `by` (B,F)."""
    replaced = arr.copy()
    rows = np.arange(len(arr))[:, None]
    replaced[rows, indices] = by[rows, indices]
    return replaced
