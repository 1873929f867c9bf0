"""Baselines, upsampling and blending: what an image looks like under a mask (METHODS.md, shared notation)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .config import INPUT_SIZE
from .errors import UserError
from .lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST_KERNEL = 2 * INPUT_SIZE - 1  # half of it may be mirrored at a border
LARGEST_SIGMA = 10_000  # pixels; RISE's kernel takes memory in proportion
BAND = 56  # rows that are blurred together: of 28 to 112 the fastest, on one core and on two


@dataclass(frozen=True)
class Baseline:
    """What an image looks like where it is deleted.

    Attributes:
        kind: `blur`, a Gaussian blur with reflect-101 borders; `mean`, ImageNet's mean colour; `rise_blur`, that of
            RISE's metric: the kernel is scipy's Gaussian filter of a point, reflected inside the kernel and so flatter
            than a truncated Gaussian, and what lies outside the image has the mean colour.
        kernel_size: Taps of a blur, odd.
        sigma: Its standard deviation in pixels.
    """

    kind: str = "blur"
    kernel_size: int = 51
    sigma: float = 50.0

    def __post_init__(self) -> None:
        """Refuse a baseline that does not exist."""
        if self.kind not in ("blur", "mean", "rise_blur"):
            raise UserError(f"unknown baseline kind {self.kind!r}: choose blur, mean or rise_blur")
        if self.kind != "mean" and (self.kernel_size < 1 or self.kernel_size % 2 == 0 or not self.sigma > 0):
            raise UserError(
                f"a blurred baseline needs an odd kernel_size and a sigma above 0, "
                f"found kernel_size={self.kernel_size} sigma={self.sigma}"
            )
        if self.kernel_size > LARGEST_KERNEL:
            raise UserError(
                f"a kernel_size of {self.kernel_size} reaches beyond a mirrored image: at most {LARGEST_KERNEL}"
            )
        if self.sigma > LARGEST_SIGMA:
            raise UserError(f"a sigma of {self.sigma:g} is a blur by nothing but the mean: at most {LARGEST_SIGMA:,}")

    def __call__(self, images: Tensor) -> Tensor:
        """Return the baselines, like `images` (B,3,H,W), of `images` in [0, 1]."""
        mean = images.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        if self.kind == "mean":
            return mean.expand_as(images).contiguous()
        # One image at a time: a baseline must not depend on its neighbours in the batch, not even by rounding.
        if self.kind == "blur":
            return torch.cat([self._blur_columns(self._blur_columns(image).mT).mT for image in images.split(1)])
        kernel = _point_filtered(self.kernel_size, self.sigma).to(images).expand(3, 1, -1, -1)
        half = self.kernel_size // 2
        return torch.cat([mean + F.conv2d(image - mean, kernel, padding=half, groups=3) for image in images.split(1)])

    def _blur_columns(self, image: Tensor) -> Tensor:
        """Blur (...,H,W) along H, band by band: most of the matrix is 0, and a band leaves most of that out."""
        size, half = image.shape[-2], self.kernel_size // 2
        matrix = _blurring(size, self.kernel_size, self.sigma).to(image)
        bands = []
        for start in range(0, size, BAND):
            reach = slice(max(0, start - half), start + BAND + half)
            bands.append(matrix[start : start + BAND, reach] @ image[..., reach, :])
        return torch.cat(bands, -2)


class Baselines(dict[Baseline, "Tensor"]):
    """Baseline -> what it makes of images (B,3,H,W), made when it is first asked for."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images

    @classmethod
    def joined(cls, parts: Sequence[Baselines], device: torch.device) -> Baselines:
        """Several as one batch on a device, with what has been made of any, and so is made of the others."""
        whole = cls(torch.cat([part.images for part in parts]).to(device))
        for baseline in {baseline for part in parts for baseline in part}:
            whole[baseline] = torch.cat([part[baseline] for part in parts]).to(device)
        return whole

    def make(self, baselines: Iterable[Baseline]) -> None:
        """Ask for these."""
        for baseline in baselines:
            self[baseline]

    def __missing__(self, baseline: Baseline) -> Tensor:
        """Make it and keep it."""
        self[baseline] = baseline(self.images)
        return self[baseline]


@lru_cache(maxsize=4)
def _blurring(size: int, kernel_size: int, sigma: float) -> Tensor:
    """The Gaussian blur of one side with reflect-101 borders as a matrix (size, size), float64; rows sum to 1.

    Products with it are a hundred times faster on a CPU than torchvision's blur, which is a convolution of 51 x 51
    taps, and as near to the exact blur.
    """
    half = kernel_size // 2
    taps = torch.arange(-half, half + 1, dtype=torch.float64).div(sigma).square().mul(-0.5).exp()
    points = F.pad(torch.eye(size, dtype=torch.float64)[:, None], (half, half), mode="reflect")
    return F.conv1d(points, (taps / taps.sum()).view(1, 1, -1))[:, 0].T.contiguous()


@lru_cache(maxsize=4)
def _point_filtered(size: int, sigma: float) -> Tensor:
    """What scipy's Gaussian filter makes of a point in the middle, (size, size), float64; it sums to 1."""
    from scipy.ndimage import gaussian_filter

    point = np.zeros((size, size))
    point[size // 2, size // 2] = 1
    return torch.from_numpy(gaussian_filter(point, sigma))


def upsample(masks: Tensor, size: int) -> Tensor:
    """Upsample masks (N,1,r,r) to (N,1,size,size), bilinearly with `align_corners=True`; itself where r = size."""
    if masks.shape[-1] == size:
        return masks
    return F.interpolate(masks, size=(size, size), mode="bilinear", align_corners=True)


@lru_cache(maxsize=16)
def _weights(resolution: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The 1-D upsampling matrix (size, resolution), so that `upsample(M) = A M A^T`."""
    identity = torch.eye(resolution, dtype=dtype)[None]
    matrix = F.interpolate(identity, size=size, mode="linear", align_corners=True)[0]
    return matrix.T.contiguous().to(device)


def upsample_adjoint(gradients: Tensor, resolution: int) -> Tensor:
    """The adjoint of `upsample`: gradients (N,1,S,S) of the upsampled mask to those (N,1,r,r) of the mask.

    Two small matrix products, because CUDA's own backward of bilinear upsampling is not deterministic.
    """
    size = gradients.shape[-1]
    if resolution == size:
        return gradients
    matrix = _weights(resolution, size, gradients.dtype, gradients.device)
    return matrix.T @ gradients @ matrix


def blend(images: Tensor, baselines: Tensor, masks: Tensor) -> Tensor:
    """Phi(x, M) = x * up(M) + baseline * (1 - up(M)); masks (N,1,r,r) in [0, 1], 1 keeps the image (seed paper)."""
    return torch.lerp(baselines, images, upsample(masks, images.shape[-1]))
