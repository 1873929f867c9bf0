"""The protocols as their YAML has them, against slow ones that share no code, and against areas worked out by hand.

The slow ones run in float64, an image and a step at a time. The areas by hand are those of an additive model, where an
element that changes p by d when it is hit at step s of n (s = 1, 2, ...) adds to the area

    d * (1 - (s - 1/2) / n)           by the trapezoid over n equal steps: half of d in the step that hits it
    d * (1 - fraction hit before s)   by the right Riemann sum: all of d from the step that hits it
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import literal
import numpy as np
import pytest
import torch
from literal import Network
from torch import Tensor
from toys import LinearPatches, SmallConv, toy_image

from igos_bench.evaluate import Evaluator
from igos_bench.metrics import Curves, Protocol, deletion_insertion
from igos_bench.overrides import compose_config

MEAN = (0.485, 0.456, 0.406)

Slow = tuple[list[float], list[float], float, float]
"""Deletion and insertion curves and their areas."""


def protocol(name: str) -> Protocol:
    """As `igos-bench protocol=NAME` has it."""
    return Protocol.from_config(compose_config([f"protocol={name}"]).protocol)


def score(
    network: LinearPatches | SmallConv, chosen: Protocol, image: Tensor, target: int, saliency_map: Tensor
) -> Curves:
    evaluate = Evaluator(network, network, batch_size=7)
    return deletion_insertion(evaluate, chosen, image[None], torch.tensor([target]), saliency_map[None])


# The slow ones


def scipys_taps(size: int, sigma: float) -> list[float]:
    """One axis of scipy's gaussian_filter(point in the middle, sigma): 4 sigma of taps, mirrored (c b a | a b c)."""
    reach = int(4 * sigma + 0.5)
    gauss = {t: math.exp(-0.5 * (t / sigma) ** 2) for t in range(-reach, reach + 1)}
    found = [0.0] * size
    for place in range(size):
        for t, weight in gauss.items():
            source = (place + t) % (2 * size)
            if (source if source < size else 2 * size - 1 - source) == size // 2:
                found[place] += weight / sum(gauss.values())
    return found


def mean_colour(image: Tensor) -> Tensor:
    return torch.stack([torch.full_like(image[c], MEAN[c]) for c in range(3)])


def rise_blur(image: Tensor) -> Tensor:
    """(3,H,W) under the 11 x 11 kernel, a tap at a time; outside the image lies the mean colour."""
    taps = scipys_taps(11, 5.0)
    _, height, width = image.shape
    wide = torch.stack([torch.full((height + 10, width + 10), MEAN[c], dtype=image.dtype) for c in range(3)])
    wide[:, 5:-5, 5:-5] = image
    found = torch.zeros_like(image)
    for i in range(11):
        for j in range(11):
            found += taps[i] * taps[j] * wide[:, i : i + height, j : j + width]
    return found


def descending(values: Tensor) -> list[int]:
    """Row-major places of the values, the largest first, ties in their order."""
    flat = values.flatten().tolist()
    return sorted(range(len(flat)), key=lambda place: -flat[place])


def slow_rise(network: Network, image: Tensor, target: int, saliency_map: Tensor) -> Slow:
    size = image.shape[-1]
    order = descending(literal.upsample(saliency_map, (size, size)))
    background = rise_blur(image)
    deleted, inserted = image.clone(), background.clone()
    mean = mean_colour(image)
    curves: list[list[float]] = [[], []]
    for step in range(size + 1):
        for place in order[max(0, step - 1) * size : step * size]:
            row, column = divmod(place, size)
            deleted[:, row, column] = mean[:, row, column]
            inserted[:, row, column] = image[:, row, column]
        for curve, shown in zip(curves, (deleted, inserted), strict=True):
            with torch.no_grad():
                curve.append(literal.probability(network, shown, target).item())
    fractions = [step / size for step in range(size + 1)]
    return curves[0], curves[1], literal.trapezoid(fractions, curves[0]), literal.trapezoid(fractions, curves[1])


def slow_igos_pp(network: Network, image: Tensor, target: int, saliency_map: Tensor) -> Slow:
    r = saliency_map.shape[-1]
    order = descending(saliency_map)
    baseline = literal.blur_baseline(image, 51, 50.0)
    hit = torch.zeros(r * r, dtype=image.dtype)
    curves: list[list[float]] = [[], []]
    areas = [0.0, 0.0]
    step = max(1, r * r // 50)
    for now in [[], *(order[start : start + step] for start in range(0, r * r, step))]:
        hit[now] = 1
        shown = hit.reshape(1, r, r)
        for i, keep in enumerate((1 - shown, shown)):
            with torch.no_grad():
                value = literal.probability(network, literal.perturb(image, baseline, keep), target).item()
            curves[i].append(value)
            areas[i] += len(now) / (r * r) * value
    return curves[0], curves[1], areas[0], areas[1]


def slow_paper(network: Network, image: Tensor, target: int, saliency_map: Tensor) -> Slow:
    baseline = literal.blur_baseline(image, 51, 50.0)
    found = literal.deletion_insertion(network, image, baseline, target, saliency_map)
    return found["deletion"], found["insertion"], found["deletion_auc"], found["insertion_auc"]


def agree(found: Curves, slow: Slow) -> None:
    deletion, insertion, deletion_auc, insertion_auc = slow
    assert found.deletion.shape[1] == len(deletion)
    assert np.abs(found.deletion[0].numpy() - deletion).max() < 1e-9
    assert np.abs(found.insertion[0].numpy() - insertion).max() < 1e-9
    assert found.deletion_auc[0] == pytest.approx(deletion_auc, abs=1e-9)
    assert found.insertion_auc[0] == pytest.approx(insertion_auc, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "slow", "r"),
    [
        ("paper", slow_paper, 8),  # at more resolutions in test_metrics.py
        *(("rise", slow_rise, r) for r in (1, 7, 32)),
        *(("igos_pp", slow_igos_pp, r) for r in (1, 7, 14, 32)),
    ],
)
def test_parity_on_a_network(name: str, slow: Callable[..., Slow], r: int) -> None:
    network = SmallConv(seed=0).double()
    image = toy_image(r).double()
    target = int(network(image[None]).argmax())
    ties = torch.rand(1, r, r, generator=torch.Generator().manual_seed(r)).double().mul(20).round() / 20
    chosen = protocol(name)
    if name == "rise":  # a row of pixels a step, as 224 are at 224
        chosen = replace(chosen, n_steps=32)
    found = score(network, chosen, image, target, ties)
    agree(found, slow(network, image, target, ties))
    # A flat curve would hide everything.
    assert r == 1 or np.ptp(found.deletion[0].numpy()) > 0.05


@pytest.mark.parametrize("r", [14, 224])
def test_rise_at_its_own_size(r: int) -> None:
    draw = torch.Generator().manual_seed(r)
    network = LinearPatches(torch.rand(8, 8, generator=draw).double() / 64, base=0.2)
    image = toy_image(1, size=224).double()
    saliency_map = torch.rand(1, r, r, generator=draw).double()
    found = score(network, protocol("rise"), image, 0, saliency_map)
    assert found.hits.tolist() == [224 * k for k in range(225)]
    agree(found, slow_rise(network, image, 0, saliency_map))


@pytest.mark.parametrize(
    ("r", "step", "steps"), [(7, 1, 49), (14, 3, 66), (28, 15, 53), (112, 250, 51), (224, 1003, 51)]
)
def test_steps_of_igos_pp(r: int, step: int, steps: int) -> None:
    hits = protocol("igos_pp").hits(r * r).tolist()
    assert hits[:-1] == [step * k for k in range(steps)]
    assert hits[-2] < hits[-1] == r * r


def test_the_kernel_is_that_of_scipy() -> None:
    from scipy.ndimage import gaussian_filter

    point = np.zeros((11, 11))
    point[5, 5] = 1
    taps = np.array(scipys_taps(11, 5.0))
    assert np.abs(np.outer(taps, taps) - gaussian_filter(point, 5)).max() < 1e-15


# By hand


def test_rise_deletion_by_hand() -> None:
    """White image, the pixel of rank m weighs c (N - m): p after m pixels is a parabola.

    Each deleted pixel takes (1 - mean of the mean colour) of its weight away. After m = tN of them that is
    c (N m - m (m - 1) / 2), and the trapezoid of n equal steps makes 1/2 of t and 1/3 + 1/(6 n^2) of t^2.
    """
    size = 16
    count = size * size
    c = 0.8 / (count * (count + 1) / 2)  # the weights sum to 0.8
    place = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    weights = torch.empty(count, dtype=torch.float64)
    weights[place] = c * (count - torch.arange(count, dtype=torch.float64))
    network = LinearPatches(weights.view(size, size), base=0.1)
    white = torch.ones(3, size, size, dtype=torch.float64)
    chosen = replace(protocol("rise"), n_steps=size)
    found = score(network, chosen, white, 0, weights.view(1, size, size))
    lost = c * (count**2 / 2 - count**2 / 2 * (1 / 3 + 1 / (6 * size**2)) + count / 4)
    assert found.deletion_auc[0] == pytest.approx(0.9 - (1 - sum(MEAN) / 3) * lost, abs=1e-12)
    assert found.deletion[0, -1] == pytest.approx(0.9 - (1 - sum(MEAN) / 3) * 0.8, abs=1e-12)


def test_rise_insertion_by_hand() -> None:
    """One bright point on the mean colour: its blur is the kernel, whatever the border; a step hits a row of pixels."""
    size, row, column, bright = 24, 9, 13, 0.5
    network = LinearPatches(torch.ones(size, size, dtype=torch.float64).cumsum(0) / 20000, base=0.05)
    image = torch.tensor(MEAN, dtype=torch.float64).view(3, 1, 1).repeat(1, size, size)
    image[:, row, column] += bright
    # Constant: everything is tied, and ties keep the row-major order. (Upsampled it would differ by rounding.)
    found = score(
        network, replace(protocol("rise"), n_steps=size), image, 0, torch.ones(1, size, size, dtype=torch.float64)
    )
    taps = [0.087958145777, 0.088896119777, 0.090474196549, 0.092191117819, 0.093489388443]
    taps = [*taps, 0.093982063268, *reversed(taps)]  # of 11, sigma 5, mirrored at both ends
    weight = [(i + 1) / 20000 for i in range(size)]
    everywhere = 0.05 + sum(MEAN) / 3 * size * sum(weight)
    start = everywhere + bright * sum(taps[d + 5] * weight[row + d] for d in range(-5, 6))
    assert found.insertion[0, 0] == pytest.approx(start, abs=1e-11)
    assert found.insertion[0, -1] == pytest.approx(everywhere + bright * weight[row], abs=1e-11)
    changes = {row + d: -bright * taps[d + 5] * weight[row + d] for d in range(-5, 6)}
    changes[row] += bright * weight[row]
    area = start + sum(change * (1 - (i + 0.5) / size) for i, change in changes.items())
    assert found.insertion_auc[0] == pytest.approx(area, abs=1e-11)
    # Deletion takes the one bright point away, in the step of its row.
    area = everywhere + bright * weight[row] * (row + 0.5) / size
    assert found.deletion_auc[0] == pytest.approx(area, abs=1e-11)


def test_igos_pp_by_hand() -> None:
    """A bright point on black, 64 x 64: 50 steps of 81 pixels and one of 46; the blur is 51 taps of a Gaussian."""
    size, row, column = 64, 30, 33
    count = size * size
    weights = torch.rand(size, size, generator=torch.Generator().manual_seed(0)).double() / 64
    network = LinearPatches(weights, base=0.3)
    image = torch.zeros(3, size, size, dtype=torch.float64)
    image[:, row, column] = 1
    found = score(network, protocol("igos_pp"), image, 0, torch.zeros(1, size, size, dtype=torch.float64))
    assert found.hits.tolist() == [*range(0, 4051, 81), 4096]

    taps = [math.exp(-0.5 * (t / 50) ** 2) for t in range(-25, 26)]
    blurred = {  # far enough from the border for it to play no part
        (row + i - 25) * size + column + j - 25: float(weights[row + i - 25, column + j - 25])
        * (taps[i] * taps[j] / sum(taps) ** 2)
        for i in range(51)
        for j in range(51)
    }
    point = row * size + column
    start = 0.3 + float(weights[row, column])
    end = 0.3 + sum(blurred.values())
    assert found.deletion[0, [0, -1]].tolist() == pytest.approx([start, end], abs=1e-12)

    def before(place: int) -> float:
        return place // 81 * 81 / count

    area = start - float(weights[row, column]) * (1 - before(point))
    area += sum(change * (1 - before(place)) for place, change in blurred.items())
    assert found.deletion_auc[0] == pytest.approx(area, abs=1e-12)
    area = end + float(weights[row, column]) * (1 - before(point))
    area -= sum(change * (1 - before(place)) for place, change in blurred.items())
    assert found.insertion_auc[0] == pytest.approx(area, abs=1e-12)
