"""I-GOS against the literal implementation of METHODS.md, in float64 on a toy network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import literal
import pytest
import torch
from torch import Tensor
from toys import SmallConv, toy_image

from igos_bench.config import Precision
from igos_bench.errors import UserError
from igos_bench.evaluate import Build, Evaluator
from igos_bench.methods import Igos
from igos_bench.methods.draws import DrawnAhead
from igos_bench.methods.regulariser import regulariser, regulariser_gradient
from igos_bench.perturb import blend

L1, L2, R = 0.1, 1.0, 8
METHOD = Igos(lambdas={R: (L1, L2)}, path_steps=6)
NOISE = (METHOD.path_steps, 3, 32, 32)


def setting(count: int = 3) -> tuple[Evaluator, Tensor, Tensor, Tensor]:
    network = SmallConv(seed=0).double().eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    images = torch.stack([toy_image(seed) for seed in range(count)]).double()
    baselines = torch.stack([literal.blur_baseline(image, 15, 8.0) for image in images])
    evaluate = Evaluator(network, network, batch_size=4)
    return evaluate, images, evaluate.logits(images).argmax(1), baselines


def generators(count: int) -> list[torch.Generator]:
    return [literal.image_generator(0, "igos", f"image{i}") for i in range(count)]


def explain(
    method: Igos, evaluate: Evaluator, images: Tensor, targets: Tensor, baselines: Tensor, **more: object
) -> Tensor:
    return method(
        evaluate,
        images,
        targets,
        baselines=baselines,
        resolution=R,
        generators=more.get("generators") or generators(len(images)),  # type: ignore[arg-type]
        run_generator=torch.Generator(),
    )


@pytest.mark.parametrize("noise", ["authors", "rgb"])
def test_map_equals_the_literal_one(noise: str) -> None:
    evaluate, images, targets, baselines = setting()
    ours = explain(Igos(lambdas={R: (L1, L2)}, path_steps=6, noise=noise), evaluate, images, targets, baselines)
    for b in range(len(images)):
        theirs = literal.igos(
            evaluate.network, images[b], baselines[b], int(targets[b]), resolution=R,
            generator=literal.image_generator(0, "igos", f"image{b}"), l1=L1, l2=L2, path_steps=6, noise=noise,
        )  # fmt: skip
        assert (ours[b] - theirs).abs().max() < 1e-9
        assert theirs.std() > 0.01, "a map that never moved shows nothing"


def test_path_points_of_several_images_fill_the_micro_batches() -> None:
    evaluate, images, targets, baselines = setting()
    sizes: list[int] = []
    evaluate.fast_network.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    noises = DrawnAhead(generators(3), NOISE, rounds=1)
    METHOD.path_gradient(evaluate, images, targets, baselines, images.new_ones(3, 1, R, R), noises)
    assert sizes == [4, 4, 4, 3, 3], "18 points, in the fewest micro-batches"


class Scarce(Evaluator):
    """Has no memory for inputs of more than two rows, which it finds out once they are made."""

    def gradients(
        self, inputs: Tensor | Build, targets: Tensor, of: Literal["probability", "logit"] = "probability"
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        def build(rows: slice) -> Tensor:
            assert callable(inputs)
            made = inputs(rows)
            if len(made) > 2:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return made

        return super().gradients(build, targets, of)


@pytest.mark.filterwarnings("ignore:out of memory at a micro-batch")
def test_points_that_are_made_again_in_halves_have_the_noise_of_their_image() -> None:
    evaluate, images, targets, baselines = setting()
    expected = explain(METHOD, evaluate, images, targets, baselines)
    scarce = Scarce(evaluate.network, evaluate.network, batch_size=18)
    assert (explain(METHOD, scarce, images, targets, baselines) - expected).abs().max() < 1e-9
    assert scarce.batch_size == 2


@pytest.mark.filterwarnings("ignore:out of memory at a micro-batch")
@pytest.mark.parametrize("failures", [1, 2, 3])
def test_noise_is_that_of_its_image_where_there_was_no_memory_to_draw_it(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, images, targets, baselines = setting()
    expected = explain(METHOD, evaluate, images, targets, baselines)
    whole, calls = torch.randn, itertools.count()

    def scarce(shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
        return whole((2**55,) if 4 <= next(calls) < 4 + failures else shape, generator=generator)

    monkeypatch.setattr(torch, "randn", scarce)
    found = explain(METHOD, evaluate, images, targets, baselines)
    assert (found - expected).abs().max() < 1e-9
    assert evaluate.batch_size == {1: 4, 2: 2, 3: 1}[failures], "what was drawn ahead is first drawn again"


def test_annealing_and_fallback_are_those_of_the_literal_one() -> None:
    # Constant logits: f never moves, every search ends in the fallback step and l1 is annealed twice.
    from toys import ConstantLogits

    network = ConstantLogits().double()
    _, images, _, baselines = setting(1)
    evaluate = Evaluator(network, network)
    trace: list[literal.IgosStep] = []
    theirs = literal.igos(
        network, images[0], baselines[0], 1, resolution=R, generator=generators(1)[0], l1=L1, l2=L2, path_steps=6,
        trace=trace,
    )  # fmt: skip
    ours = explain(METHOD, evaluate, images, torch.tensor([1]), baselines)
    assert (ours[0] - theirs).abs().max() < 1e-12
    method = Igos()
    l1 = torch.tensor([1.0, 1.0])
    history = [torch.tensor([0.5, 0.5])] + [torch.tensor([0.5, 0.4])] * 14
    seen = []
    for iteration in range(15):
        l1 = method.annealed(l1, iteration, history)
        seen.append(l1.tolist())
    assert seen[6] == [1.0, 1.0]
    assert seen[7] == pytest.approx([0.1, 1.0])
    assert seen[11] == pytest.approx([0.1, 1.0])
    assert seen[12] == pytest.approx([0.02, 1.0])


def test_a_batch_gives_what_each_image_gives_alone() -> None:
    """To rounding: convolutions sum in another order in micro-batches of another size."""
    evaluate, images, targets, baselines = setting()
    together = explain(METHOD, evaluate, images, targets, baselines)
    for b in range(len(images)):
        one = slice(b, b + 1)
        alone = explain(
            METHOD, evaluate, images[one], targets[one], baselines[one], generators=[generators(len(images))[b]]
        )
        assert (together[one] - alone).abs().max() < 1e-12


def test_line_search_decreases_the_objective_or_falls_back() -> None:
    evaluate, images, targets, baselines = setting()
    masks = torch.ones(len(images), 1, R, R, dtype=torch.float64)
    l1, l2 = (torch.full((len(images),), value, dtype=torch.float64) for value in (L1, L2))
    probability = evaluate.probability(blend(images, baselines, masks), targets)
    slope = METHOD.path_gradient(
        evaluate, images, targets, baselines, masks, DrawnAhead(generators(len(images)), NOISE, rounds=1)
    )
    direction = slope + regulariser_gradient(masks, l1, l2, 2)
    found, value = METHOD.line_search(evaluate, images, targets, baselines, masks, probability, direction, l1, l2)
    assert torch.allclose(value, evaluate.probability(blend(images, baselines, found), targets))
    assert (value + regulariser(found, l1, l2, 2) < probability + regulariser(masks, l1, l2, 2)).all()
    assert found.min() >= 0 and found.max() <= 1


def test_random_state_is_left_alone() -> None:
    evaluate, images, targets, baselines = setting(1)
    before = torch.get_rng_state()
    explain(METHOD, evaluate, images, targets, baselines)
    assert torch.equal(before, torch.get_rng_state())


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"method.noise='red' is unknown; choices: authors, rgb"):
        Igos(noise="red")
    evaluate, images, targets, baselines = setting(1)
    with pytest.raises(UserError, match=r"no \(l1, l2\) for resolution 8"):
        explain(Igos(), evaluate, images, targets, baselines)


def test_only_gradients_are_asked_of_a_rounded_network() -> None:
    """The line search compares in float32."""

    def broken(_inputs: Tensor) -> Tensor:
        raise AssertionError("asked for more than gradients")

    exact, images, targets, baselines = setting()
    images, baselines = images.float(), baselines.float()
    network = exact.network.float()
    in_bf16 = Evaluator(network, network, 4, Precision.bf16, forward_network=broken, float32_network=network)
    in_fp32 = Evaluator(network, network, 4)
    maps = [explain(METHOD, evaluate, images, targets, baselines) for evaluate in (in_bf16, in_fp32)]
    assert in_bf16.backwards == in_fp32.backwards and in_bf16.forwards > in_bf16.backwards
    assert 0 < (maps[0] - maps[1]).abs().mean() < 0.05
