"""Mask against the literal implementation of METHODS.md, in float64 on a toy network."""

from __future__ import annotations

import literal
import pytest
import torch
from torch import Tensor
from toys import SmallConv, toy_image

from igos_bench.errors import UserError
from igos_bench.evaluate import Evaluator
from igos_bench.methods import Mask, get_method

L1, L2, R = 0.05, 0.5, 8


def setting(count: int = 3) -> tuple[Evaluator, Tensor, Tensor, Tensor]:
    network = SmallConv(seed=0).double()
    images = torch.stack([toy_image(seed) for seed in range(count)]).double()
    baselines = torch.stack([literal.blur_baseline(image, 15, 8.0) for image in images])
    evaluate = Evaluator(network, network, batch_size=2)
    return evaluate, images, evaluate.logits(images).argmax(1), baselines


def generators(count: int) -> list[torch.Generator]:
    return [literal.image_generator(0, "mask", f"image{i}") for i in range(count)]


def explain(
    method: Mask,
    evaluate: Evaluator,
    images: Tensor,
    targets: Tensor,
    baselines: Tensor,
    draws: list[torch.Generator] | None = None,
) -> Tensor:
    return method(
        evaluate,
        images,
        targets,
        baselines=baselines,
        resolution=R,
        generators=draws or generators(len(images)),
        run_generator=torch.Generator(),
    )


@pytest.mark.parametrize("noise", ["authors", "rgb"])
def test_map_equals_the_literal_one(noise: str) -> None:
    evaluate, images, targets, baselines = setting()
    method = Mask(lambdas={R: (L1, L2)}, iterations=40, noise=noise)
    ours = explain(method, evaluate, images, targets, baselines)
    for b in range(len(images)):
        theirs = literal.mask_method(
            evaluate.network, images[b], baselines[b], int(targets[b]), resolution=R, generator=generators(b + 1)[b],
            l1=L1, l2=L2, iterations=40, noise=noise,
        )  # fmt: skip
        assert (ours[b] - theirs).abs().max() < 1e-9
        assert theirs.std() > 0.01, "a map that never moved shows nothing"


def test_a_batch_gives_what_each_image_gives_alone() -> None:
    evaluate, images, targets, baselines = setting()
    method = Mask(lambdas={R: (L1, L2)}, iterations=10)
    together = explain(method, evaluate, images, targets, baselines)
    for b in range(len(images)):
        one = slice(b, b + 1)
        alone = explain(method, evaluate, images[one], targets[one], baselines[one], [generators(b + 1)[b]])
        assert (together[one] - alone).abs().max() < 1e-12  # micro-batches of other sizes round otherwise


def test_one_forward_and_backward_pass_an_iteration_and_random_state_left_alone() -> None:
    evaluate, images, targets, baselines = setting(1)
    before, passes = torch.get_rng_state(), evaluate.forwards
    explain(Mask(lambdas={R: (L1, L2)}, iterations=5), evaluate, images, targets, baselines)
    assert (evaluate.forwards - passes, evaluate.backwards) == (5, 5)
    assert torch.equal(before, torch.get_rng_state())


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"method.noise='red' is unknown; choices: authors, rgb"):
        Mask(noise="red")
    with pytest.raises(UserError, match="method.iterations must be at least 1, found 0"):
        get_method("mask", {"iterations": 0})
    with pytest.raises(UserError, match="method.learning_rate must be above 0, found 0"):
        Mask(learning_rate=0)
    evaluate, images, targets, baselines = setting(1)
    with pytest.raises(UserError, match=r"mask has no \(l1, l2\) for resolution 8, only for \[14, 28, 112, 224\]"):
        explain(Mask(), evaluate, images, targets, baselines)
