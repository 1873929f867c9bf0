"""Baselines, upsampling and its adjoint."""

from __future__ import annotations

import literal
import pytest
import torch
from toys import toy_image

from igos_bench.errors import UserError
from igos_bench.perturb import LARGEST_KERNEL, Baseline, Baselines, blend, upsample, upsample_adjoint


@pytest.mark.parametrize("r", [1, 8, 14, 64])
def test_adjoint(r: int) -> None:
    draw = torch.Generator().manual_seed(r)
    masks = torch.rand(2, 1, r, r, dtype=torch.float64, generator=draw)
    slopes = torch.rand(2, 1, 64, 64, dtype=torch.float64, generator=draw)
    there = (upsample(masks, 64) * slopes).sum()
    assert there == pytest.approx(float((masks * upsample_adjoint(slopes, r)).sum()), rel=1e-12)


@pytest.mark.parametrize(
    ("size", "taps", "sigma"),
    [(224, 51, 50.0), (130, 51, 50.0), (113, 5, 2.0), (65, 127, 9.0), (61, 7, 2.0), (9, 5, 1.0), (3, 3, 1.0)],
)
def test_blur_is_the_literal_one(size: int, taps: int, sigma: float) -> None:
    """Of sides that differ, of one band and of several, and with kernels up to one that reaches over all of it."""
    image = toy_image(0, size=size).double()[:, 1:]
    blurred = Baseline("blur", taps, sigma)(image[None])[0]
    assert (blurred - literal.blur_baseline(image, taps, sigma)).abs().max() < 1e-12


def test_a_batch_has_what_was_made_of_its_images() -> None:
    blur, mean = Baseline("blur", 5, 2.0), Baseline("mean")
    images = torch.stack([toy_image(seed) for seed in range(3)])
    one, two = Baselines(images[:1]), Baselines(images[1:])
    two.make([blur])
    two[blur] += 1  # so that it is seen whether it is made again
    batch = Baselines.joined([one, two], torch.device("cpu"))
    assert torch.equal(batch.images, images) and list(batch) == [blur]
    assert torch.equal(batch[blur], torch.cat([blur(images[:1]), blur(images[1:]) + 1]))
    assert torch.equal(batch[mean], mean(images))


def test_blend_ends() -> None:
    image, baseline = toy_image(0)[None], toy_image(1)[None]
    assert torch.equal(blend(image, baseline, torch.ones(1, 1, 32, 32)), image)
    assert torch.equal(blend(image, baseline, torch.zeros(1, 1, 32, 32)), baseline)


def test_impossible_baselines_are_named() -> None:
    with pytest.raises(UserError, match="unknown baseline kind 'noise'"):
        Baseline("noise")
    with pytest.raises(UserError, match="odd kernel_size"):
        Baseline("blur", 50, 50.0)
    with pytest.raises(UserError, match="a sigma above 0, found kernel_size=3 sigma=0"):
        Baseline("blur", 3, 0.0)
    with pytest.raises(UserError, match=f"a kernel_size of {LARGEST_KERNEL + 2} reaches beyond .* {LARGEST_KERNEL}"):
        Baseline("blur", LARGEST_KERNEL + 2)
    with pytest.raises(UserError, match="a sigma of 10001 .* at most 10,000"):
        Baseline("rise_blur", 11, 10_001)
    Baseline("rise_blur", 11, 10_000)
    Baseline("blur", LARGEST_KERNEL, 0.5)
    Baseline("mean", 2, 0.0)  # which has neither


@pytest.mark.parametrize("kind", ["blur", "rise_blur"])
def test_a_blur_of_one_tap_is_the_image(kind: str) -> None:
    images = torch.stack([toy_image(seed) for seed in range(3)])
    assert torch.allclose(Baseline(kind, 1, 1.0)(images), images, atol=1e-6)


def test_a_mask_of_the_images_size_is_itself() -> None:
    mask = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert upsample(mask, 32) is mask
    assert upsample_adjoint(mask, 32) is mask
