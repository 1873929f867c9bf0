"""scripts/bench.py: its arithmetic, that it stops where results differ, and its peers."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import literal
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from toys import SmallConv, toy_image

from igos_bench.config import ModelConfig, Precision, ProtocolConfig
from igos_bench.evaluate import Evaluator
from igos_bench.methods import ExcitationBp, GradCam, IntegratedGradients, Rise
from igos_bench.methods.rise import RandomMasks
from igos_bench.metrics import Protocol
from igos_bench.models import Classifier, load_classifier
from igos_bench.rates import Rate

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

import bench  # noqa: E402
import bench_report  # noqa: E402
import peers  # noqa: E402
from bench_cases import Case, Peer, areas, explain, largest, relative  # noqa: E402
from peers import AsReleased, Subject  # noqa: E402
from random_vgg19 import standardised  # noqa: E402

SIZE = 32
IMAGES = torch.stack([toy_image(seed, SIZE) for seed in range(2)])


# The arithmetic.

NOW = [0.0]  # seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands still but while a call says that it takes time: other work on the machine is no matter of arithmetic."""
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: NOW[0]))


def timed_case(ours: Tensor, theirs: Tensor) -> Case:
    """Ours takes 20 ms for 2 images and 6 + 2 passes; theirs 60 ms and 8 + 4, of which 2 an image are surplus."""
    network = SmallConv(0)
    evaluate, released = Evaluator(network, network), AsReleased(network, Precision.fp32)

    def run_ours() -> Tensor:
        NOW[0] += 0.02
        evaluate.count(6)
        evaluate.count(2, backward=True)
        return ours

    def run_theirs() -> Tensor:
        NOW[0] += 0.06
        released.forwards += 8
        released.gradients += 4
        return theirs

    peer = Peer("literal", run_theirs, released, surplus=2)
    return Case("igos", "short", 2, evaluate, run_ours, [peer], largest, tolerance=0.1)


def ceilings() -> tuple[bench_report.Ceiling, bench_report.Ceiling]:
    """1 ms forward and 3 ms with the backward pass, the second measurement being the better one."""
    rates = [Rate("folded", 4, seconds) for seconds in (0.002, 0.001, 0.004, 0.009, 0.003, 0.012)]
    name = ("efficientnet_lite0", "fp32")
    return bench_report.Ceiling(*name, False, *rates[:3]), bench_report.Ceiling(*name, True, *rates[3:])


@pytest.mark.usefixtures("clock")
def test_ratio_passes_and_efficiency() -> None:
    case = timed_case(torch.ones(2, 1), 1.05 * torch.ones(2, 1))
    (result,) = bench.compare(case, "efficientnet_lite0", Precision.fp32, rounds=3)
    assert result.ours_seconds == pytest.approx(0.01)
    assert result.ratio == pytest.approx(3)
    assert result.ratio_min <= result.ratio <= result.ratio_max and result.pairs == 3
    assert (result.ours_forwards, result.ours_gradients) == (3, 1)
    assert (result.theirs_forwards, result.theirs_gradients) == (4, 2)
    assert result.difference == pytest.approx(0.05)
    result.set_efficiency(*ceilings())
    assert result.efficiency == pytest.approx((2 * 0.001 + 2 * 0.003) / result.ours_seconds)


def test_each_of_two_peers_has_its_own_passes() -> None:
    case = timed_case(torch.ones(2, 1), torch.ones(2, 1))
    both = Case(**{**vars(case), "peers": case.peers * 2})
    assert [r.theirs_forwards for r in bench.compare(both, "vgg19", Precision.fp32, rounds=1)] == [4, 4]


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (torch.full((2, 1), 1.2), r"igos \(short\) on vgg19 in fp32 differs from literal by 0.2 \(largest\)"),
        (torch.full((2, 1), torch.nan), "differs from literal by nan"),
        (torch.zeros(2, 1), "literal gives zeros alone, which shows nothing"),
    ],
)
def test_results_that_differ_have_no_time(theirs: Tensor, message: str) -> None:
    with pytest.raises(bench.DisagreementError, match=message):
        bench.compare(timed_case(torch.ones(2, 1), theirs), "vgg19", Precision.fp32, rounds=1)


@pytest.mark.usefixtures("clock")
def test_what_is_written(tmp_path: Path) -> None:
    results = bench.compare(
        timed_case(torch.ones(2, 1), torch.ones(2, 1)), "efficientnet_lite0", Precision.fp32, rounds=2
    )
    results[0] = replace(results[0], ratio_min=2.2, ratio=2.3, ratio_max=2.5, efficiency=0.95)
    bench_report.write_csv(list(ceilings()), results, tmp_path / "bench.csv")
    table = pd.read_csv(tmp_path / "bench.csv")
    assert table["method"].tolist() == ["ceiling: forward", "ceiling: forward + backward", "igos"]
    assert table["ours_seconds"].tolist()[:2] == [0.001, 0.003] and table["ratio"].tolist()[:2] == [4, 4]
    assert table.loc[2, "required_ratio"] == 2.4 and table.loc[2, "efficiency"] == 0.95
    assert table["commit"].notna().all() and table["versions"].str.contains("torch ").all()
    text = bench_report.printed(list(ceilings()), results)
    assert "2.30x (2.4) !" in text and "0.95  " in text
    bench_report.draw(results, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_mistake_is_named() -> None:
    command = [sys.executable, str(SCRIPTS / "bench.py"), "networks=[vgg16]"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "bench: networks=['vgg16']: choose from efficientnet_lite0, vgg19\n"


# The peers.


def subject(network: nn.Module, images: Tensor = IMAGES, kernel_size: int = 15) -> Subject:
    baselines = torch.stack([literal.blur_baseline(image, kernel_size, 8.0) for image in images])
    with torch.inference_mode():
        targets = network(images).argmax(1)
    released = AsReleased(network, Precision.fp32)
    return Subject(released, images, baselines, targets.clone(), [str(i) for i in range(len(images))])


def check_integrated_gradients(evaluate: Evaluator, s: Subject) -> tuple[Tensor, Tensor, tuple[int, int]]:
    method = IntegratedGradients(steps=6)
    return explain(method, evaluate, s, SIZE), peers.captum_integrated_gradients(s, 6), (0, 12)


def check_grad_cam(evaluate: Evaluator, s: Subject) -> tuple[Tensor, Tensor, tuple[int, int]]:
    return explain(GradCam(), evaluate, s, SIZE), peers.pytorch_grad_cam(s, "features"), (0, 2)


def check_torchray_rise(evaluate: Evaluator, s: Subject) -> tuple[Tensor, Tensor, tuple[int, int]]:
    method = Rise(masks=40, probability=0.4)
    s = replace(s, baselines=method.baseline(s.images))
    return explain(method, evaluate, s, SIZE), peers.torchray_rise_maps(s, masks(method), 0.4), (82, 0)


def check_rise_in_batches(evaluate: Evaluator, s: Subject) -> tuple[Tensor, Tensor, tuple[int, int]]:
    method = Rise(masks=130, probability=0.4)
    s = replace(s, baselines=method.baseline(s.images))
    return explain(method, evaluate, s, SIZE), peers.rise_in_batches(s, masks(method), 0.4), (260, 0)


def masks(method: Rise) -> Tensor:
    """Those that `explain` makes."""
    from igos_bench.batch import generator

    drawn = RandomMasks.draw(method.masks, method.grid, method.probability, IMAGES, generator(0, "rise"))
    return drawn[0 : method.masks]


@pytest.mark.parametrize(
    "check", [check_integrated_gradients, check_grad_cam, check_torchray_rise, check_rise_in_batches]
)
def test_peers_compute_what_we_do(
    check: Callable[[Evaluator, Subject], tuple[Tensor, Tensor, tuple[int, int]]],
) -> None:
    network = SmallConv(0)
    s = subject(network)
    ours, theirs, passes = check(Evaluator(network, network, layers={SIZE: network.features}), s)
    assert ours.shape == theirs.shape and not theirs.requires_grad
    assert relative(ours, theirs) < 1e-3
    assert (s.network.forwards, s.network.gradients) == passes


def test_quantus_computes_what_we_do() -> None:
    pytest.importorskip("quantus")
    network = SmallConv(0)
    s = subject(network)
    # Baselines of the protocol, whose kernel is too large for images so small.
    protocol = Protocol.from_config(ProtocolConfig(n_steps=24))
    s = replace(s, baselines=protocol.deletion_baseline(s.images))
    maps = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    theirs = peers.quantus_pixel_flipping(s, maps, 24)
    assert largest(areas(Evaluator(network, network), protocol, s, maps), theirs) < 0.01
    assert (s.network.forwards, s.network.gradients) == (2 * 2 * 25, 0)


@pytest.fixture(scope="module")
def lite0() -> Classifier:
    config = ModelConfig(weights=None, layers={"excitation_bp": {112: "blocks.1.0.bn1.act", 28: "blocks.3.0.bn1.act"}})
    return load_classifier(config, torch.device("cpu"))


@pytest.mark.parametrize("resolution", [112, 28])
def test_torchray_with_its_new_rules_computes_what_we_do(lite0: Classifier, resolution: int) -> None:
    image = toy_image(1, 224)[None]
    s = subject(lite0.network, image, 51)
    network = peers.torchray_network(lite0.network, Precision.fp32)
    assert torch.equal(network(image), s.network(image)), "rules change nothing on the way up"
    s = replace(s, network=network)
    layers = lite0.layers_for("excitation_bp")
    theirs = peers.torchray_excitation_bp(s, f"body.{lite0.layer_names_for('excitation_bp')[resolution]}")
    ours = explain(ExcitationBp(), Evaluator(lite0.network, lite0.fast_network, layers=layers), s, resolution)
    assert theirs.sum() > 0.01 and relative(ours, theirs) < 1e-4


def test_bf16_is_the_networks_alone() -> None:
    network = SmallConv(0)
    released = AsReleased(network, Precision.bf16)
    logits = released(IMAGES)
    assert logits.dtype == torch.float32
    assert 0 < (logits - network(IMAGES)).norm() < 0.3 * logits.norm()


def test_standardised_channels() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)).requires_grad_(False)
    before = copy.deepcopy(body)
    standardised(body, IMAGES)
    for outputs in (body[0](IMAGES), body(IMAGES)):
        deviation, mean = torch.std_mean(outputs, (0, 2, 3))
        assert (deviation - 1).abs().max() < 1e-3 and mean.abs().max() < 1e-3
    assert not torch.allclose(before(IMAGES), body(IMAGES))
    assert not any(module._forward_hooks for module in body.modules())
