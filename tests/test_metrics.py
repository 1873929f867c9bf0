"""Deletion and insertion: closed forms on a linear model, and parity with the literal implementation."""

from __future__ import annotations

import literal
import numpy as np
import pytest
import torch
from toys import LinearPatches, SmallConv, toy_image

from igos_bench.config import BaselineConfig, ProtocolConfig
from igos_bench.errors import UserError
from igos_bench.evaluate import Evaluator
from igos_bench.metrics import Protocol, deletion_insertion, is_constant, tied_share

SMALL_BLUR = BaselineConfig("blur", 15, 8.0)


def protocol(**changes: object) -> Protocol:
    config = ProtocolConfig(deletion_baseline=SMALL_BLUR, insertion_baseline=SMALL_BLUR)
    for key, value in changes.items():
        setattr(config, key, value)
    return Protocol.from_config(config)


@pytest.mark.parametrize("r", [4, 8, 32])
def test_parity_with_the_literal_metric(r: int) -> None:
    network = SmallConv(seed=0).double().eval()
    images = torch.stack([toy_image(0), toy_image(1)]).double()
    evaluate = Evaluator(network, network, batch_size=3)
    targets = evaluate.logits(images).argmax(1)
    maps = torch.rand(2, 1, r, r, generator=torch.Generator().manual_seed(r)).double().mul(10).round() / 10
    ours = deletion_insertion(evaluate, protocol(), images, targets, maps)
    for b in range(2):
        baseline = protocol().deletion_baseline(images[b : b + 1])[0]
        theirs = literal.deletion_insertion(network, images[b], baseline, int(targets[b]), maps[b])
        assert np.abs(ours.deletion[b].numpy() - theirs["deletion"]).max() < 1e-9
        assert np.abs(ours.insertion[b].numpy() - theirs["insertion"]).max() < 1e-9
        assert ours.deletion_auc[b] == pytest.approx(theirs["deletion_auc"], abs=1e-9)
        assert ours.insertion_auc[b] == pytest.approx(theirs["insertion_auc"], abs=1e-9)
        assert ours.ties[b] == theirs["ties"]


def test_linear_model_has_the_curve_of_the_paper_and_pencil() -> None:
    """White image, black mean... : with one pixel an element, p falls by w_ij / (patch pixels) at each deletion."""
    size = 4
    weights = torch.arange(1.0, 17.0).view(size, size) / 200  # sums to 0.68
    network = LinearPatches(weights, base=0.1).double()
    images = torch.ones(1, 3, size, size, dtype=torch.float64)
    mean = BaselineConfig("mean")
    evaluate = Evaluator(network, network, batch_size=5)
    found = deletion_insertion(
        evaluate,
        protocol(deletion_baseline=mean, insertion_baseline=mean),
        images,
        torch.tensor([0]),
        weights.view(1, 1, size, size),
    )
    drop = 1 - np.mean([0.485, 0.456, 0.406])
    ordered = np.sort(weights.double().numpy().ravel())[::-1]
    expected = 0.1 + ordered.sum() - drop * np.concatenate([[0], np.cumsum(ordered)])
    assert np.abs(found.deletion[0].numpy() - expected).max() < 1e-7
    area = np.trapezoid(expected, np.linspace(0, 1, 17))
    assert found.deletion_auc[0] == pytest.approx(area, abs=1e-7)
    # The model is additive: what deletion takes away, insertion gives back.
    assert found.insertion_auc[0] == pytest.approx(expected[0] + expected[-1] - area, abs=1e-7)


def test_ends_are_evaluated_once() -> None:
    network = SmallConv(seed=0).eval()
    evaluate = Evaluator(network, network)
    images = toy_image(0)[None]
    maps = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = deletion_insertion(evaluate, protocol(), images, torch.tensor([0]), maps)
    assert evaluate.forwards == 2 * 64  # 63 inner points of each curve, the image and the baseline
    assert found.deletion[0, 0] == found.insertion[0, -1]
    assert found.deletion[0, -1] == found.insertion[0, 0]


def test_a_single_element_has_two_points() -> None:
    network = SmallConv(seed=0).eval()
    found = deletion_insertion(
        Evaluator(network, network), protocol(), toy_image(0)[None], torch.tensor([0]), torch.ones(1, 1, 1, 1)
    )
    assert found.deletion_auc[0] == pytest.approx(float(found.deletion.mean()))


def test_hits() -> None:
    assert protocol().hits(28 * 28).tolist() == [int(k * 784 / 200 + 0.5) for k in range(201)]
    assert protocol().hits(14 * 14).tolist() == list(range(197))
    assert protocol(n_steps=50, spacing="floor").hits(14 * 14).tolist() == [*range(0, 196, 3), 196]


def test_right_riemann_sum_weighs_the_partial_step() -> None:
    curve = torch.tensor([[1.0, 0.5, 0.25, 0.0]])
    areas = protocol(area="right").areas(curve, torch.tensor([0, 4, 8, 10]))
    assert areas[0] == pytest.approx(0.5 * 0.4 + 0.25 * 0.4)


def test_ties() -> None:
    assert tied_share(torch.tensor([0.0, 0.0, 1.0, 2.0])) == 0.5
    assert tied_share(torch.arange(4.0)) == 0.0


def test_what_is_constant() -> None:
    assert is_constant(torch.zeros(2)) and is_constant(torch.full((1, 2, 2), 0.3))
    assert not is_constant(torch.tensor([0.0, 0.0, 1.0])) and not is_constant(torch.tensor([1.0, 0.0, 0.0]))
    assert not is_constant(torch.zeros(1)), "a single value"
    assert not is_constant(torch.zeros(0))


def test_unknown_choice_is_named() -> None:
    with pytest.raises(UserError, match=r"protocol.area='simpson' is unknown; choices: trapezoid, right"):
        protocol(area="simpson")
    with pytest.raises(UserError, match="protocol.n_steps must be at least 1, found 0"):
        protocol(n_steps=0)


def test_one_step_goes_from_nothing_to_everything() -> None:
    assert protocol(n_steps=1).hits(49).tolist() == [0, 49]
