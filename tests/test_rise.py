"""RISE: against a literal version with the same masks; its masks against scikit-image, and how few it makes at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.transform import resize
from torch import Tensor
from toys import SmallConv, toy_image

from igos_bench.errors import UserError
from igos_bench.evaluate import Evaluator
from igos_bench.methods import Rise, get_method
from igos_bench.methods.rise import RandomMasks
from igos_bench.perturb import IMAGENET_MEAN

SIZE = 32


def literal_masks(count: int, grid: int, size: int, probability: float, generator: torch.Generator) -> np.ndarray:
    """(count,size,size): scikit-image's resizing of the padded grid's cells, then the crop, one mask at a time."""
    cell = -(-size // grid)
    up_size = (grid + 1) * cell
    grids = (torch.rand(count, grid, grid, generator=generator) < probability).double().numpy()
    shifts = torch.randint(cell, (count, 2), generator=generator).tolist()
    masks = np.empty((count, size, size))
    for i, (row, column) in enumerate(shifts):
        large = resize(grids[i], (up_size, up_size), order=1, mode="reflect", anti_aliasing=False)
        masks[i] = large[row : row + size, column : column + size]
    return masks


def literal_rise(network: torch.nn.Module, image: Tensor, target: int, masks: np.ndarray, probability: float) -> Tensor:
    mean = torch.tensor(IMAGENET_MEAN).to(image).view(3, 1, 1)
    total = torch.zeros_like(image[0])
    for mask in torch.from_numpy(masks).to(image):
        masked = image * mask + (1 - mask) * mean
        total += network(masked[None]).softmax(1)[0, target] * mask
    return total / (len(masks) * probability)


def run_generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def explain(method: Rise, evaluate: Evaluator, images: Tensor, targets: Tensor) -> Tensor:
    return method(
        evaluate,
        images,
        targets,
        baselines=method.baseline(images),
        resolution=images.shape[-1],
        generators=[torch.Generator() for _ in images],
        run_generator=run_generator(),
    )


def setting(count: int = 2, batch_size: int = 7) -> tuple[Evaluator, Tensor, Tensor]:
    network = SmallConv(seed=0).double()
    images = torch.stack([toy_image(seed) for seed in range(count)]).double()
    evaluate = Evaluator(network, network, batch_size=batch_size)
    return evaluate, images, evaluate.logits(images).argmax(1)


def test_masks_are_scikit_images() -> None:
    images = torch.zeros(1, 3, 224, 224)
    ours = RandomMasks.draw(40, 7, 0.5, images, run_generator())[0:40]
    theirs = literal_masks(40, 7, 224, 0.5, run_generator())
    assert ours.shape == (40, 1, 224, 224)
    assert np.abs(ours[:, 0].numpy() - theirs).max() < 1e-5
    assert ours.min() >= 0 and ours.max() <= 1 + 1e-6


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_map_equals_the_literal_one(probability: float) -> None:
    evaluate, images, targets = setting()
    ours = explain(Rise(masks=150, probability=probability), evaluate, images, targets)
    masks = literal_masks(150, 7, SIZE, probability, run_generator())
    for b in range(len(images)):
        theirs = literal_rise(evaluate.network, images[b], int(targets[b]), masks, probability)
        assert (ours[b, 0] - theirs).norm() < 1e-4 * theirs.norm()
        assert (ours[b, 0] - theirs).abs().max() < 1e-7  # the toy network amplifies the rounding of the masks
        assert theirs.std() > 1e-3


def test_neither_neighbours_nor_the_micro_batch_change_a_map() -> None:
    evaluate, images, targets = setting(3)
    method = Rise(masks=100)
    together = explain(method, evaluate, images, targets)
    for b in range(len(images)):
        one = slice(b, b + 1)
        assert torch.equal(together[one], explain(method, evaluate, images[one], targets[one]))
    other, _, _ = setting(3, batch_size=64)
    assert (together - explain(method, other, images, targets)).abs().max() < 1e-12


def test_masks_are_shared_and_made_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[slice] = []
    make: Callable[[RandomMasks, slice], Tensor] = RandomMasks.__getitem__

    def remember(masks: RandomMasks, rows: slice) -> Tensor:
        asked.append(rows)
        return make(masks, rows)

    monkeypatch.setattr(RandomMasks, "__getitem__", remember)
    evaluate, images, targets = setting()
    explain(Rise(masks=300), evaluate, images, targets)
    assert max(rows.stop - rows.start for rows in asked) <= 64
    assert evaluate.forwards == 2 + 2 * 300 and evaluate.backwards == 0


def test_a_constant_probability_gives_the_mean_mask() -> None:
    from toys import ConstantLogits

    network = ConstantLogits((0.0, 0.0)).double()
    images = torch.zeros(1, 3, SIZE, SIZE).double()
    ours = explain(Rise(masks=50), Evaluator(network, network), images, torch.tensor([1]))
    mean = literal_masks(50, 7, SIZE, 0.5, run_generator()).mean(0)
    assert np.abs(ours[0, 0].numpy() - 0.5 * mean / 0.5).max() < 1e-9


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="found masks=0 grid=7"):
        get_method("rise", {"masks": 0})
    with pytest.raises(UserError, match="method.probability must lie above 0 and not above 1, found 0"):
        Rise(probability=0)
