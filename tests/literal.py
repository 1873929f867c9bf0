"""The methods and the protocol `paper` once more, slowly: one image, one path point and one forward pass at a time.

The oracle of the tests. It is written from the facts about the methods alone and shares no code with `igos_bench`, so
that both can only agree by being right. Everything is differentiated by autograd straight through `F.interpolate`, and
runs in the dtype of the image: float64 tells a wrong formula from rounding.

Shapes: `image` and `baseline` (3, H, W) in [0, 1]; `mask` (1, r, r) in [0, 1], 1 keeps the image; saliency maps
(1, r, r), higher = more evidence. `network` maps (N, 3, H, W) in [0, 1] to logits (N, classes).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = Callable[[Tensor], Tensor]
Noise = Literal["authors", "rgb"]

IMAGENET_STD = (0.229, 0.224, 0.225)


# Shared notation


def blur_baseline(image: Tensor, kernel_size: int = 51, sigma: float = 50.0) -> Tensor:
    """Gaussian blur with reflect-101 borders; a side must be longer than `kernel_size // 2`."""
    radius = kernel_size // 2
    taps = torch.tensor([math.exp(-0.5 * (t / sigma) ** 2) for t in range(-radius, radius + 1)], dtype=torch.float64)
    taps = (taps / taps.sum()).to(image)
    channels = image[:, None]  # (3, 1, H, W): each colour by itself
    padded = F.pad(channels, (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(padded, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))[:, 0]


def upsample(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """up(M): (1, r, r) -> (1, H, W)."""
    return F.interpolate(mask[None], size=size, mode="bilinear", align_corners=True)[0]


def perturb(image: Tensor, baseline: Tensor, mask: Tensor) -> Tensor:
    """Phi(x, M) = x * up(M) + x~ * (1 - up(M))."""
    keep = upsample(mask, (image.shape[1], image.shape[2]))
    return image * keep + baseline * (1 - keep)


def probability(network: Network, image: Tensor, target: int) -> Tensor:
    """f_c(x): the softmax probability of the target, a scalar."""
    return network(image[None]).softmax(dim=1)[0, target]


def total_variation(mask: Tensor, exponent: int) -> Tensor:
    """TV(M): mean of |vertical difference|^exponent + the same for the horizontal ones."""
    vertical = mask[:, 1:, :] - mask[:, :-1, :]
    horizontal = mask[:, :, 1:] - mask[:, :, :-1]
    return vertical.abs().pow(exponent).mean() + horizontal.abs().pow(exponent).mean()


def regularisers(mask: Tensor, l1: float, l2: float, exponent: int) -> Tensor:
    """l1 * mean|1 - M| + l2 * TV(M); torch's gradient of |.| at 0 is 0, as wanted."""
    return l1 * (1 - mask).abs().mean() + l2 * total_variation(mask, exponent)


def image_generator(seed: int, method: str, image_id: str) -> torch.Generator:
    """A generator on the CPU that depends on nothing but these three."""
    digest = hashlib.sha256(f"{seed}|{method}|{image_id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def draw_noise(generator: torch.Generator, count: int, image: Tensor, sigma: tuple[float, float, float]) -> Tensor:
    """(count, 3, H, W) in [0, 1] units; `sigma` by channel, in ImageNet-normalised units."""
    draw = torch.randn((count, *image.shape), generator=generator, dtype=torch.float32)
    scale = [s * std for s, std in zip(sigma, IMAGENET_STD, strict=True)]
    return draw.to(image) * image.new_tensor(scale).view(1, 3, 1, 1)


# I-GOS


class IgosStep(TypedDict):
    """One iteration: mask, f_c(Phi(x, M)) and l1 at its start; TG; the step taken; whether no step was good enough."""

    mask: Tensor
    probability: float
    l1: float
    direction: Tensor
    step: float
    fallback: bool


def igos_objective(
    network: Network, image: Tensor, baseline: Tensor, target: int, mask: Tensor, l1: float, l2: float
) -> Tensor:
    """F(M) of I-GOS: at the single point, without noise and without the path."""
    score = probability(network, perturb(image, baseline, mask), target)
    return score + regularisers(mask, l1, l2, exponent=2)


def igos_direction(
    network: Network, image: Tensor, baseline: Tensor, target: int, mask: Tensor, l1: float, l2: float, noise: Tensor
) -> Tensor:
    """TG, (1, r, r): gradient of the path's mean score + gradient of the regularisers; `noise` (S, 3, H, W)."""
    leaf = mask.clone().requires_grad_()
    (direction,) = torch.autograd.grad(regularisers(leaf, l1, l2, exponent=2), leaf)
    path_steps = len(noise)
    for s in range(1, path_steps + 1):
        keep = upsample(leaf, (image.shape[1], image.shape[2]))
        point = baseline + (s / path_steps) * keep * (image - baseline) + noise[s - 1]
        (gradient,) = torch.autograd.grad(probability(network, point, target) / path_steps, leaf)
        direction = direction + gradient
    return direction


def igos(
    network: Network,
    image: Tensor,
    baseline: Tensor,
    target: int,
    *,
    resolution: int,
    generator: torch.Generator,
    l1: float,
    l2: float,
    iterations: int = 15,
    path_steps: int = 20,
    noise: Noise = "authors",
    trace: list[IgosStep] | None = None,
) -> Tensor:
    """I-GOS (Qi, Khorram, Li, 2019), section 2. Returns 1 - M; `trace` receives one `IgosStep` an iteration."""
    sigma = (0.4, 0.0, 0.0) if noise == "authors" else (0.2, 0.2, 0.2)
    mask = torch.ones(1, resolution, resolution).to(image)
    probabilities: list[float] = []

    for iteration in range(iterations):
        with torch.no_grad():
            score = probability(network, perturb(image, baseline, mask), target)
            start = score + regularisers(mask, l1, l2, exponent=2)
            probabilities.append(score.item())

        noises = draw_noise(generator, path_steps, image, sigma)
        direction = igos_direction(network, image, baseline, target, mask, l1, l2, noises)
        squared_norm = direction.square().sum()

        step = 200.0
        while step >= 1e-5:
            with torch.no_grad():
                candidate = (mask - step * direction).clamp(0, 1)
                value = igos_objective(network, image, baseline, target, candidate, l1, l2)
            if value <= start - 1e-4 * step * squared_norm:
                break
            step *= 0.2
        fallback = step < 1e-5

        if trace is not None:
            trace.append(
                IgosStep(
                    mask=mask,
                    probability=probabilities[iteration],
                    l1=l1,
                    direction=direction,
                    step=step,
                    fallback=fallback,
                )
            )
        mask = (mask - step * direction).clamp(0, 1)

        # The reference code compares with the iteration before this one.
        if iteration == int(iterations / 2) and abs(probabilities[0] - probabilities[iteration - 1]) <= 0.001:
            l1 /= 10
        if iteration == int(iterations / 1.25) and abs(probabilities[0] - probabilities[iteration - 1]) <= 0.01:
            l1 /= 5

    return 1 - mask


# Mask


def mask_method(
    network: Network,
    image: Tensor,
    baseline: Tensor,
    target: int,
    *,
    resolution: int,
    generator: torch.Generator,
    l1: float = 0.01,
    l2: float = 0.2,
    iterations: int = 500,
    learning_rate: float = 0.1,
    noise: Noise = "authors",
) -> Tensor:
    """Mask (Fong & Vedaldi, ICCV 2017) as its PyTorch port does it. Returns 1 - M."""
    sigma = (0.2, 0.0, 0.0) if noise == "authors" else (0.2, 0.2, 0.2)
    mask = torch.ones(1, resolution, resolution).to(image).requires_grad_()
    optimizer = torch.optim.Adam([mask], lr=learning_rate)

    for _ in range(iterations):
        noisy = perturb(image, baseline, mask) + draw_noise(generator, 1, image, sigma)[0]
        objective = probability(network, noisy, target) + regularisers(mask, l1, l2, exponent=3)
        (mask.grad,) = torch.autograd.grad(objective, mask)
        optimizer.step()
        with torch.no_grad():
            mask.clamp_(0, 1)

    return 1 - mask.detach()


# Gradients


def integrated_gradients(network: Network, image: Tensor, baseline: Tensor, target: int, steps: int = 20) -> Tensor:
    """Integrated Gradients (Sundararajan et al., ICML 2017), right Riemann sum; (1, H, W), signed."""
    total = torch.zeros_like(image)
    for s in range(1, steps + 1):
        point = (baseline + (s / steps) * (image - baseline)).requires_grad_()
        (gradient,) = torch.autograd.grad(probability(network, point, target), point)
        total = total + gradient
    return ((image - baseline) * total / steps).sum(dim=0, keepdim=True)


def grad_cam(network: Network, layer_module: nn.Module, image: Tensor, target: int) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017) at the output of `layer_module`; (1, h, w)."""
    outputs: list[Tensor] = []

    def keep_output(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs.append(output)

    handle = layer_module.register_forward_hook(keep_output)
    try:
        logit = network(image[None].clone().requires_grad_())[0, target]
    finally:
        handle.remove()
    (activation,) = outputs  # (1, K, h, w)
    (gradient,) = torch.autograd.grad(logit, activation)
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (1, K, 1, 1)
    return (weights * activation).sum(dim=1).relu().detach()


# Deletion and insertion


class Curves(TypedDict):
    """Both curves over the fractions of hit elements, their areas, and the share of elements that are tied."""

    fractions: list[float]
    deletion: list[float]
    insertion: list[float]
    deletion_auc: float
    insertion_auc: float
    ties: float


def trapezoid(fractions: list[float], values: list[float]) -> float:
    """The area under the straight lines between the points."""
    area = 0.0
    for k in range(1, len(values)):
        area += (fractions[k] - fractions[k - 1]) * (values[k] + values[k - 1]) / 2
    return area


def deletion_insertion(
    network: Network, image: Tensor, baseline: Tensor, target: int, saliency_map: Tensor, n_steps_max: int = 200
) -> Curves:
    """Deletion and insertion under the protocol `paper`."""
    resolution = saliency_map.shape[-1]
    elements = resolution * resolution
    flat = saliency_map.reshape(elements)  # row-major
    ranking = flat.argsort(descending=True, stable=True).tolist()
    n_steps = min(elements, n_steps_max)

    def score(keep: Tensor) -> float:
        with torch.no_grad():
            return probability(network, perturb(image, baseline, keep), target).item()

    fractions, deletion, insertion = [], [], []
    for k in range(n_steps + 1):
        count = math.floor(k * elements / n_steps + 0.5)
        hit = torch.zeros(elements).to(image)
        hit[ranking[:count]] = 1
        hit = hit.reshape(1, resolution, resolution)
        fractions.append(count / elements)
        deletion.append(score(1 - hit))
        insertion.append(score(hit))

    occurrences = Counter(flat.tolist())
    return Curves(
        fractions=fractions,
        deletion=deletion,
        insertion=insertion,
        deletion_auc=trapezoid(fractions, deletion),
        insertion_auc=trapezoid(fractions, insertion),
        ties=sum(n for n in occurrences.values() if n > 1) / elements,
    )
