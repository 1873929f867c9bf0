"""The convolutions that stay in float32 beside bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from igos_bench import fast, onednn
from igos_bench.config import ModelConfig, Precision
from igos_bench.evaluate import Evaluator
from igos_bench.fold import fold_batch_norms
from igos_bench.leading import leading_convolutions
from igos_bench.models import load_classifier
from igos_bench.network import Normalised
from igos_bench.overrides import compose_config
from igos_bench.perturb import Baseline, Baselines
from igos_bench.prepare import Run, prepare


def names(body: nn.Module) -> list[str]:
    traced, _ = fold_batch_norms(body)
    return [str(node.target) for node in leading_convolutions(traced)]


def test_the_first_few_that_cost_little() -> None:
    lite0 = load_classifier(ModelConfig(weights=None), torch.device("cpu"))
    # 10.8, 3.6 and 6.4 of 385 million multiplications; the fourth has 19.3 more.
    assert names(lite0.network.body) == ["conv_stem", "blocks.0.0.conv_dw", "blocks.0.0.conv_pw"]
    one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 64, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    one(torch.zeros(1, 3, 224, 224))
    assert names(one) == ["0"]
    assert names(nn.Sequential(nn.Conv2d(3, 5, 224), nn.Flatten())) == [], "all of the work is no small part of it"


def half_deleted(run: Run) -> Tensor:
    """The sample's photographs as the metric sees them."""
    decoded = [image for _, image in run.decode(run.images, ahead=4) if isinstance(image, Baselines)]
    images = Baselines.joined(decoded, run.device).images
    half = torch.rand(len(images), 1, 7, 7, generator=torch.Generator().manual_seed(0)).round()
    return torch.lerp(Baseline()(images), images, F.interpolate(half, images.shape[-1]))


@pytest.mark.parametrize("fused", [True, False], ids=["in oneDNN's calls", "under autocast alone, as on a GPU"])
def test_logits_move_less(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(compose_config(["method=igos", "resolution=28", "data.limit=20"]))
    images = half_deleted(run)
    exact = Evaluator(run.classifier.network, run.classifier.network, 4, Precision.fp32)
    wanted = exact.logits(images)
    if not fused:
        monkeypatch.setattr(onednn, "is_available", lambda dtype: False)

    def moved() -> float:
        network, _ = fast.speed_up(run.classifier.network, torch.device("cpu"), Precision.bf16)
        assert isinstance(network, Normalised) and network is not run.classifier.network
        found = Evaluator(run.classifier.network, network, 4, Precision.bf16).logits(images)
        return float((found - wanted).square().mean().sqrt())

    kept = moved()
    monkeypatch.setattr("igos_bench.leading.LARGEST_SHARE", 0.0)
    assert kept < moved() / 2


def test_beside_bfloat16_there_is_float32() -> None:
    """For what is compared, see `Evaluator.probability`; in fp32 it is the one fast network."""
    run = prepare(compose_config(["method=igos", "resolution=28", "data.limit=3", "precision=bf16"]))
    network, fast = run.classifier.network, run.classifier.fast_network
    images = half_deleted(run)
    wanted = network(images)
    scale = wanted.abs().max()
    with torch.inference_mode():  # as the evaluator asks first
        assert (run.classifier.in_float32(images) - wanted).abs().max() < 1e-4 * scale
    exact = run.classifier.float32_network
    assert (exact(images) - wanted).abs().max() < 1e-4 * scale and exact is not network, "fast, and not rounded"
    found = Evaluator(network, fast, 4, Precision.bf16).logits(images)
    assert (found - wanted).abs().max() > 1e-3 * scale
    in_fp32 = prepare(compose_config(["method=igos", "resolution=28", "data.limit=3"])).classifier
    assert in_fp32.float32_network is in_fp32.fast_network
