"""The evaluator: micro-batches, counts, memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import SmallConv, toy_image

from igos_bench.evaluate import Evaluator


class Hungry(nn.Module):
    """Has memory for `most` inputs and no more."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.body, self.most = SmallConv(0), most

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        logits: Tensor = self.body(images)
        return logits


IMAGES = torch.stack([toy_image(seed) for seed in range(7)])
TARGETS = torch.tensor([0, 1, 2, 3, 4, 0, 1])


def test_gradient_is_autograds() -> None:
    network = SmallConv(0).double()
    inputs = IMAGES.double().requires_grad_()
    expected = network(inputs).softmax(1).gather(1, TARGETS[:, None])[:, 0]
    (slope,) = torch.autograd.grad(expected.sum(), inputs)
    evaluate = Evaluator(network, network, batch_size=3)
    values, slopes = evaluate.gradient(IMAGES.double(), TARGETS)
    assert torch.allclose(values, expected, atol=1e-12)
    assert torch.allclose(slopes, slope, atol=1e-12)
    assert (evaluate.forwards, evaluate.backwards) == (7, 7)
    assert torch.allclose(evaluate.probability(lambda rows: IMAGES.double()[rows], TARGETS), expected, atol=1e-12)
    assert (evaluate.forwards, evaluate.backwards) == (14, 7)


def test_out_of_memory_halves_the_micro_batch_and_goes_on() -> None:
    network = Hungry(most=2)
    evaluate = Evaluator(network, network, batch_size=7)
    with pytest.warns(UserWarning, match="out of memory at a micro-batch of 7: going on with 4"):
        found = evaluate.probability(IMAGES, TARGETS)
    assert evaluate.batch_size == 2
    expected = network.body(IMAGES).softmax(1).gather(1, TARGETS[:, None])[:, 0]
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("what", ["probability", "gradient", "activations"])
def test_memory_that_runs_out_half_way_loses_no_input(what: str) -> None:
    """Several micro-batches are still to come when the first of them is halved."""
    network = Hungry(most=2)
    layer = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    inputs, targets = IMAGES.repeat(2, 1, 1, 1), TARGETS.repeat(2)

    def ask(evaluate: Evaluator) -> tuple[Tensor, ...]:
        if what == "activations":
            return evaluate.activations(inputs, targets, layer)
        found = getattr(evaluate, what)(inputs, targets)
        return found if isinstance(found, tuple) else (found,)

    expected = ask(Evaluator(network.body, network.body, batch_size=14))
    evaluate = Evaluator(network, network, batch_size=4)
    with pytest.warns(UserWarning, match="out of memory at a micro-batch of 4: going on with 2"):
        found = ask(evaluate)
    assert evaluate.forwards == 14
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))


def test_an_input_that_does_not_fit_alone_is_an_error() -> None:
    network = Hungry(most=0)
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="allocate memory"):
        Evaluator(network, network, batch_size=2).gradient(IMAGES, TARGETS)


def test_hooks_are_gone_after_activations_and_after_an_exception() -> None:
    network = SmallConv(0)
    layer = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    evaluate = Evaluator(network, network, batch_size=3)
    activations, slopes = evaluate.activations(IMAGES, TARGETS, layer)
    assert activations.shape == slopes.shape and len(slopes) == 7
    assert not layer._forward_hooks
    with pytest.raises(RuntimeError):
        evaluate.activations(IMAGES[:, :1], TARGETS, layer)
    assert not layer._forward_hooks
