"""Tiny deterministic networks whose answers are known, for images (N, 3, H, W) in [0, 1] of any size.

None touches the global random state; `.double()` makes each a float64 network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def toy_image(seed: int, size: int = 32) -> Tensor:
    """(3, size, size) in [0, 1], float32: coarse blobs of colour with a fine texture, so that blurring changes it."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.rand(1, 3, 4, 4, generator=generator)
    texture = torch.randn(3, size, size, generator=generator)
    smooth = F.interpolate(blobs, size=(size, size), mode="bilinear", align_corners=False)[0]
    return (smooth + 0.15 * texture).clamp(0, 1)


class LinearPatches(nn.Module):
    """Two classes; the probability of class 0 is linear in the image, which gives every curve in closed form.

    p = base + sum over a g x g grid of patches of w_ij * (mean of the patch over pixels and colours), clamped to
    [1e-6, 1 - 1e-6]. Where the clamp does not bite, softmax of the logits is p up to rounding.

    Args:
        weights: (g, g), one weight a patch; H and W should be multiples of g.
        base: p of a black image.
    """

    weights: Tensor

    def __init__(self, weights: Tensor, base: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weights", weights.clone())
        self.base = base

    def probability(self, images: Tensor) -> Tensor:
        """The probability of class 0, (N,), without a softmax."""
        patches = F.adaptive_avg_pool2d(images.mean(dim=1), self.weights.shape[0])  # (N, g, g)
        return (self.base + (self.weights * patches).sum(dim=(1, 2))).clamp(1e-6, 1 - 1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, 2)."""
        p = self.probability(images)
        return torch.stack([p.log(), (-p).log1p()], dim=1)  # exp of both sums to 1: softmax gives p back


class SmallConv(nn.Module):
    """conv - ReLU - conv - ReLU - 4 x 4 average pooling - linear, seeded weights, five classes.

    Without biases, and with a first layer whose kernels sum to zero, it sees edges and texture only: an image of one
    colour gets equal logits, a blurred one nearly so, and a `toy_image` a confident class, through `gain`. The pooled
    grid makes it care where things are. `features` ends in the last ReLU, H x W, for Grad-CAM.
    """

    def __init__(self, seed: int = 0, gain: float = 600.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            edges = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect", bias=False)
            self.features = nn.Sequential(
                edges,
                nn.ReLU(),
                nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", bias=False),
                nn.ReLU(),
            )
            self.pool = nn.AdaptiveAvgPool2d(4)
            self.head = nn.Linear(8 * 4 * 4, 5, bias=False)
        with torch.no_grad():
            edges.weight -= edges.weight.mean(dim=(2, 3), keepdim=True)
        self.gain = gain
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, 5)."""
        features: Tensor = self.features(images)
        logits: Tensor = self.head(self.pool(features).flatten(1))
        return self.gain * logits


class ConstantLogits(nn.Module):
    """The same logits for every image; gradients to the image exist and are zero."""

    logits: Tensor

    def __init__(self, logits: Sequence[float] = (0.0, 1.0)) -> None:
        super().__init__()
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, classes)."""
        return self.logits + 0 * images.mean(dim=(1, 2, 3))[:, None]


class NanFor(nn.Module):
    """Two classes, logits (mean, -mean) of the image, and NaN for an image whose mean is above `threshold`."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, 2)."""
        mean = images.mean(dim=(1, 2, 3))[:, None]
        logits = torch.cat([mean, -mean], dim=1)
        return logits.masked_fill(mean > self.threshold, float("nan"))
