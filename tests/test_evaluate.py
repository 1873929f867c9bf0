"""The evaluator: micro-batches, counts, memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys import SmallConv, toy_image

from igos_bench.config import Precision
from igos_bench.errors import ImageError
from igos_bench.evaluate import Evaluator

ROOT = Path(__file__).parent.parent
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")
CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.30 GiB.")


class Hungry(nn.Module):
    """Has memory for `most` inputs and no more; `asked` is for how many it was asked."""

    def __init__(self, most: int, error: RuntimeError = CPU) -> None:
        super().__init__()
        self.body, self.most, self.error = SmallConv(0), most, error
        self.asked: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        if len(images) > self.most:
            raise self.error
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


@pytest.mark.parametrize("error", [CPU, CUDA], ids=["cpu", "cuda"])
@pytest.mark.filterwarnings("ignore:out of memory at a micro-batch")
def test_it_halves_down_to_one(error: RuntimeError) -> None:
    network = Hungry(1, error)
    found = Evaluator(network, network, batch_size=7).logits(IMAGES)
    assert network.asked[:4] == [7, 4, 2, 1] and network.asked.count(1) == 7
    assert torch.allclose(found, network.body(IMAGES), atol=1e-4)
    network = Hungry(0, error)
    with pytest.raises(type(error)):
        Evaluator(network, network, batch_size=7).logits(IMAGES)
    assert network.asked == [7, 4, 2, 1]


@pytest.mark.filterwarnings("ignore:out of memory at a micro-batch")
def test_inputs_that_do_not_fit_are_made_in_halves() -> None:
    network = Hungry(7)
    asked: list[int] = []

    def build(most: int, rows: slice) -> Tensor:
        asked.append(rows.stop - rows.start)
        if asked[-1] > most:
            raise CPU
        return IMAGES[rows]

    evaluate = Evaluator(network, network, batch_size=7)
    found = evaluate.probability(partial(build, 2), TARGETS)
    assert asked == [7, 4, 2, 2, 2, 1] and evaluate.batch_size == 2
    assert evaluate.notes == {"micro-batch cut to 4: out of memory": 1, "micro-batch cut to 2: out of memory": 1}
    expected = network.body(IMAGES).softmax(1).gather(1, TARGETS[:, None])[:, 0]
    assert torch.allclose(found, expected, atol=1e-5)
    with pytest.raises(RuntimeError, match="allocate memory"):
        evaluate.probability(partial(build, 0), TARGETS)


def test_another_error_is_not_tried_again() -> None:
    network = Hungry(1, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        Evaluator(network, network, batch_size=7).logits(IMAGES)
    assert network.asked == [7]


REAL = """
import resource, sys, warnings
import torch
from igos_bench.evaluate import Evaluator
from igos_bench.fast import speed_up
from igos_bench.network import Normalised
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
body = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
body(torch.zeros(1, 3, 224, 224))
network = Normalised(body, [0.5] * 3, [0.25] * 3).eval().requires_grad_(False)
fast, _ = speed_up(network, torch.device("cpu"))
images, targets = torch.rand(16, 3, 224, 224), torch.zeros(16, dtype=torch.int64)
ask = {
    "probability": lambda evaluate: evaluate.probability(images, targets),
    "gradient": lambda evaluate: evaluate.gradient(images, targets)[1],
    "activations": lambda evaluate: evaluate.activations(images, targets, body[3])[1],
}
for what, call in ask.items():
    expected = call(Evaluator(network, fast, 2))
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20, -1))  # the first layer of 16 inputs takes 200 MB
    evaluate = Evaluator(network, fast, 16)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = call(evaluate)
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    assert "out of memory at a micro-batch of 16" in str(warned[0].message), what
    assert 1 <= evaluate.batch_size < 16, what
    assert torch.allclose(found, expected, atol=1e-6), what
    print(what, evaluate.batch_size)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit of a process's memory is Linux's")
def test_memory_that_really_runs_out() -> None:
    ended = subprocess.run([sys.executable, "-c", REAL], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["probability", "gradient", "activations"]


class Broken(nn.Module):
    """Gives `value` for class 4, which is not its target, of the fourth image; gradients are multiplied by `slope`."""

    def __init__(self, value: float = 0.0, slope: float = 1.0) -> None:
        super().__init__()
        self.body, self.value, self.slope = SmallConv(0), value, slope

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * self.slope)
        is_fourth = (images == IMAGES[3]).flatten(1).all(1)[:, None]
        return logits + torch.where(is_fourth, self.value, 0.0) * nn.functional.one_hot(torch.tensor(4), 5)


CALLS: Mapping[str, Callable[[Evaluator, Tensor], object]] = {
    "logits": lambda evaluate, images: evaluate.logits(images),
    "probability": lambda evaluate, images: evaluate.probability(lambda rows: images[rows], TARGETS),
    "gradient": lambda evaluate, images: evaluate.gradient(images, TARGETS),
    "activations": lambda evaluate, images: evaluate.activations(images, TARGETS, evaluate.network.body.features[3]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_are_not_passed_on(
    call: Callable[[Evaluator, Tensor], object], value: float
) -> None:
    """Minus infinity for a class would leave finite probabilities of all the others."""
    network = Broken(value)
    with pytest.raises(ImageError, match="^the network's logits are NaN or infinite for 1 of 4 inputs$"):
        call(Evaluator(network, network, batch_size=4), IMAGES)


@pytest.mark.parametrize("what", ["gradient", "activations"])
def test_gradients_that_are_no_numbers_are_not_passed_on(what: str) -> None:
    network = Broken(slope=float("inf"))
    with pytest.raises(ImageError, match="^the network's gradients are NaN or infinite for 4 of 4 inputs$"):
        CALLS[what](Evaluator(network, network, batch_size=4), IMAGES)


def test_large_logits_are_numbers() -> None:
    """Their sum is not."""
    network = Broken(3e38)
    logits = Evaluator(network, network).logits(IMAGES[3:4].repeat(2, 1, 1, 1))
    assert logits.sum().isinf() and logits.isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1.1e6])
@pytest.mark.parametrize("what", CALLS)
def test_inputs_that_are_no_images_are_refused(what: str, value: float) -> None:
    """A ReLU6 would make a number of NaN."""
    network = Broken()
    evaluate = Evaluator(network, network, batch_size=4)
    inputs = torch.full_like(IMAGES, 9e5)  # all together longer than any may be
    CALLS[what](evaluate, inputs)
    inputs[2, 1, 3, 3] = value
    with pytest.raises(ImageError, match="^the network is asked about inputs that are NaN or beyond 1,000,000$"):
        CALLS[what](evaluate, inputs)


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


@pytest.mark.parametrize(
    ("batch_size", "count", "sizes"),
    [
        (32, 200, [32] + [28] * 6),
        (32, 58, [32, 26]),
        (10, 7, [7]),
        (10, 12, [8, 4]),
        (10, 200, [8] * 25),
        (6, 12, [4, 4, 4]),
        (3, 7, [3, 2, 2]),
    ],
)
def test_an_engine_gets_whole_pieces(batch_size: int, count: int, sizes: list[int]) -> None:
    """Of four, where a micro-batch has as many; passes with a gradient, or in float32 beside bf16, are not its."""
    network, seen = SmallConv(0).eval().requires_grad_(False), list[int]()

    class Engine:
        piece = 4

        def __call__(self, inputs: Tensor) -> Tensor:
            seen.append(len(inputs))
            logits: Tensor = network(inputs)
            return logits

    evaluate = Evaluator(network, network, batch_size, forward_network=Engine())
    images = torch.stack([toy_image(seed % 3) for seed in range(count)])
    targets = torch.zeros(count, dtype=torch.int64)
    torch.testing.assert_close(evaluate.probability(images, targets), network(images).softmax(1)[:, 0])
    assert seen == sizes
    evaluate.logits(images)
    assert seen == 2 * sizes and evaluate.forwards == 2 * count
    rows = [rows.stop - rows.start for rows, _, _ in evaluate.gradients(images, targets)]
    assert max(rows) - min(rows) <= 1 and sum(rows) == count and len(seen) == 2 * len(sizes)
    in_bf16 = Evaluator(network, network, batch_size, Precision.bf16, forward_network=Engine())
    asked = list[slice]()
    in_bf16.probability(lambda part: asked.append(part) or images[part], targets, in_float32=True)
    assert [part.stop - part.start for part in asked] == rows and len(seen) == 2 * len(sizes)


def test_what_is_asked_in_float32_is_so_in_every_precision() -> None:
    """Not rounded as the rest is, nor by the other engine; in fp32 as ever."""
    network = SmallConv(seed=0).eval().requires_grad_(False)
    fast = SmallConv(seed=0).to(torch.bfloat16).eval().requires_grad_(False)
    images = torch.stack([toy_image(seed) for seed in range(3)])
    targets = torch.zeros(3, dtype=torch.int64)
    exact = network(images).softmax(1)[:, 0]

    class InBf16(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = fast(inputs.bfloat16())
            return logits

    other = nn.Sequential(network, nn.Flatten())
    for float32_network in (None, other):
        evaluate = Evaluator(
            network, InBf16(), 2, Precision.bf16, forward_network=InBf16(), float32_network=float32_network
        )
        torch.testing.assert_close(evaluate.probability(images, targets, in_float32=True), exact)
        assert 1e-5 < (evaluate.probability(images, targets) - exact).abs().max() < 0.05
        assert evaluate.forwards == 6
    usual = Evaluator(network, InBf16(), 2, forward_network=other)
    torch.testing.assert_close(usual.probability(images, targets, in_float32=True), exact)
