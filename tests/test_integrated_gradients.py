"""Integrated Gradients: against captum and the literal implementation, and completeness."""

from __future__ import annotations

import literal
import pytest
import torch
from captum.attr import IntegratedGradients as Captum
from torch import Tensor
from toys import LinearPatches, SmallConv, toy_image

from igos_bench.errors import UserError
from igos_bench.evaluate import Evaluator
from igos_bench.methods import IntegratedGradients, get_method

SIZE = 32


def explain(
    method: IntegratedGradients, evaluate: Evaluator, images: Tensor, targets: Tensor, baselines: Tensor
) -> Tensor:
    return method(
        evaluate,
        images,
        targets,
        baselines=baselines,
        resolution=SIZE,
        generators=[torch.Generator() for _ in images],
        run_generator=torch.Generator(),
    )


def setting(count: int = 3) -> tuple[Evaluator, Tensor, Tensor, Tensor]:
    network = SmallConv(seed=0).double()
    images = torch.stack([toy_image(seed) for seed in range(count)]).double()
    baselines = torch.stack([literal.blur_baseline(image, 15, 8.0) for image in images])
    evaluate = Evaluator(network, network, batch_size=3)
    return evaluate, images, evaluate.logits(images).argmax(1), baselines


def test_map_is_captums() -> None:
    evaluate, images, targets, baselines = setting()
    captum = Captum(lambda inputs: evaluate.network(inputs).softmax(1), multiply_by_inputs=True)
    theirs = captum.attribute(images, baselines, targets, n_steps=20, method="riemann_right").sum(1, keepdim=True)
    ours = explain(IntegratedGradients(), evaluate, images, targets, baselines)
    assert ours.shape == (3, 1, SIZE, SIZE)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    assert ours.min() < 0 < ours.max(), "signed"


def test_map_equals_the_literal_one() -> None:
    evaluate, images, targets, baselines = setting()
    ours = explain(IntegratedGradients(steps=7), evaluate, images, targets, baselines)
    for b in range(len(images)):
        theirs = literal.integrated_gradients(evaluate.network, images[b], baselines[b], int(targets[b]), steps=7)
        assert (ours[b] - theirs).abs().max() < 1e-12


def test_elements_add_up_to_the_difference_of_probabilities() -> None:
    network = LinearPatches(torch.linspace(0.1, 0.9, 4).view(2, 2) / 4, base=0.05).double()
    evaluate = Evaluator(network, network)
    images = torch.stack([toy_image(seed) for seed in range(2)]).double()
    baselines, targets = 0.3 * images, torch.zeros(2, dtype=torch.long)
    sums = explain(IntegratedGradients(steps=3), evaluate, images, targets, baselines).sum((1, 2, 3))
    change = network.probability(images) - network.probability(baselines)
    assert (sums - change).abs().max() < 1e-9  # linear: without a Riemann error


def test_a_batch_gives_what_each_image_gives_alone() -> None:
    evaluate, images, targets, baselines = setting()
    together = explain(IntegratedGradients(), evaluate, images, targets, baselines)
    for b in range(len(images)):
        one = slice(b, b + 1)
        alone = explain(IntegratedGradients(), evaluate, images[one], targets[one], baselines[one])
        assert (
            together[one] - alone
        ).abs().max() < 1e-12  # paths share micro-batches, whose products may round otherwise


def test_a_path_without_points_is_refused() -> None:
    with pytest.raises(UserError, match="method.steps must be at least 1, found 0"):
        get_method("integrated_gradients", {"steps": 0})
