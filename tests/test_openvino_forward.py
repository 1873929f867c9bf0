"""Passes without a gradient by OpenVINO: the same numbers, or a refusal with its reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_bounds import BreaksBetween, grey
from test_leading import half_deleted
from test_lite0 import LITE0
from torch import Tensor, nn

from igos_bench.config import Forward, Precision
from igos_bench.errors import UserError
from igos_bench.evaluate import Evaluator
from igos_bench.fast import logits_fault
from igos_bench.models import Classifier, load_classifier
from igos_bench.network import Normalised
from igos_bench.openvino_forward import PIECE, OpenVINOForward
from igos_bench.overrides import compose_config
from igos_bench.prepare import _compiled, prepare
from igos_bench.runner import execute


@pytest.fixture(scope="module")
def lite0() -> Classifier:
    return load_classifier(LITE0, torch.device("cpu"))


class Small(nn.Module):
    """Its logits are sums over the whole image, each of another ReLU."""

    def __init__(self, rectify: type[nn.Module] = nn.ReLU6) -> None:
        super().__init__()
        self.first, self.rectify = nn.Conv2d(3, 8, 5, stride=4), rectify()
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.rectify(self.first(images))).flatten(1))
        return logits


def normalised(body: nn.Module) -> Normalised:
    return Normalised(body, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)).eval().requires_grad_(False)


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_logits_are_the_networks_whatever_the_micro_batch(lite0: Classifier, precision: Precision) -> None:
    try:
        forward = OpenVINOForward(lite0.network, precision)
    except UserError as error:
        assert precision is Precision.bf16 and "computes in f32 on this processor" in str(error)
        assert not torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
        return
    many = images(2 * PIECE + 1)
    found = forward(many)
    exact = lite0.network(many)
    assert found.dtype == torch.float32 and found.shape == exact.shape
    allowed = 1e-4 if precision is Precision.fp32 else 0.2  # of the largest: plain autocast moves them by 0.06
    assert (found - exact).abs().max() <= allowed * exact.abs().max()
    if precision is Precision.bf16:
        assert (found - exact).abs().max() > 1e-4, "it computes in bf16"
    for count in (1, 2, PIECE, PIECE + 2):
        assert torch.equal(forward(many[-count:]), found[-count:])
    assert torch.equal(forward(many.contiguous(memory_format=torch.channels_last)), found)


def test_in_bf16_the_first_convolutions_round_less(lite0: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        OpenVINOForward(lite0.network, Precision.bf16)
    except UserError as error:
        assert "computes in f32 on this processor" in str(error)
        return
    shown = half_deleted(prepare(compose_config(["method=igos", "resolution=28", "data.limit=20"])))
    exact = lite0.network(shown)

    def moved() -> float:
        return float((OpenVINOForward(lite0.network, Precision.bf16)(shown) - exact).square().mean().sqrt())

    kept = moved()
    monkeypatch.setattr("igos_bench.leading.LARGEST_SHARE", 0.0)
    assert kept < 0.85 * moved()


def test_what_it_gave_out_stays_as_it_is_in_the_next_call() -> None:
    forward = OpenVINOForward(normalised(Small()), Precision.fp32)
    first = forward(images(PIECE))
    before = first.clone()
    forward(1 - images(PIECE))
    assert torch.equal(first, before)


@pytest.mark.parametrize("rectify", [nn.ReLU, nn.ReLU6])
def test_a_network_that_may_break_is_refused(rectify: type[nn.Module]) -> None:
    """On random images its logits are right."""
    network = Normalised(BreaksBetween(rectify), (0, 0, 0), (1, 1, 1)).eval().requires_grad_(False)
    assert network(images(2)).isfinite().all() and network(grey(0.125)).isnan().any()
    with pytest.raises(UserError, match="what reaches third of the network is not known to stay finite"):
        OpenVINOForward(network, Precision.fp32)


def test_a_network_that_cannot_be_followed_is_refused() -> None:
    class Branches(Small):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images if images.mean() > 0 else -images)

    with pytest.raises(UserError, match="the network cannot be traced: "):
        OpenVINOForward(normalised(Branches()), Precision.fp32)


def test_unknown_modules_are_refused() -> None:
    with pytest.raises(UserError, match="what reaches rectify of the network is not known"):
        OpenVINOForward(normalised(Small(nn.SiLU)), Precision.fp32)


class Raised(nn.Conv2d):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs**16)


def test_what_is_no_plain_convolution_is_refused() -> None:
    """Its weights bound nothing; nor do those of a module with a hook, or that of an average divided by less."""
    raised, hooked, divided = Small(), Small(), Small()
    raised.first = Raised(3, 8, 5, stride=4)
    hooked.first.register_forward_hook(lambda _module, _inputs, output: output**16)
    divided.rectify = nn.Sequential(nn.AvgPool2d(2, divisor_override=1), nn.ReLU())  # type: ignore[assignment]
    for body in (raised, hooked, divided):
        with pytest.raises(UserError, match="of the network is not known to stay finite"):
            OpenVINOForward(normalised(body), Precision.fp32)

    class Named(Small):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.head(self.pool(self.rectify(input=self.first(input=images))).flatten(1))
            return logits

    with pytest.raises(UserError, match="not known to stay finite"):
        OpenVINOForward(normalised(Named()), Precision.fp32)


def test_nothing_is_told_to_its_makers(tmp_path: Path) -> None:
    """The import alone would send a word, and leave an identifier in the home folder."""
    code = "; ".join(
        [
            "import sys",
            "from igos_bench.openvino_forward import keep_silent",
            "keep_silent()",
            "import openvino",
            "from openvino.tools.ovc import telemetry_utils",
            "print([name for name in sys.modules if name.startswith('openvino_telemetry.')])",
        ]
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("[]\n", 0), ended.stderr
    assert not list(tmp_path.iterdir())


def test_threads_may_share_one(lite0: Classifier) -> None:
    forward, one, other = OpenVINOForward(lite0.network, Precision.fp32), images(PIECE), 1 - images(PIECE)
    expected = [forward(one), forward(other)] * 10
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(forward, [one, other] * 10))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_processor_without_bf16_is_told() -> None:
    code = "; ".join(
        [
            "from test_openvino_forward import *",
            "OpenVINOForward(normalised(Small()), Precision.bf16)",
        ]
    )
    environment = {**os.environ, "OV_CPU_MAX_ISA": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "evaluate.forward=openvino computes in f32 on this processor, not in bf16" in ended.stderr


def test_other_logits_are_a_fault() -> None:
    network = normalised(Small())
    assert logits_fault(network, network, Precision.fp32) is None
    assert logits_fault(network, lambda inputs: network(inputs) + 2e-4, Precision.fp32) == "its logits move by 0.0002"
    assert logits_fault(network, lambda inputs: network(inputs) + 5e-5, Precision.fp32) is None
    assert logits_fault(network, lambda inputs: network(inputs) * torch.nan, Precision.fp32) is not None
    assert logits_fault(network, lambda inputs: network(inputs) + 1, Precision.bf16) is not None


def test_without_openvino_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"OpenVINO is not installed: pip install igos-bench\[openvino\]"):
        OpenVINOForward(normalised(Small()), Precision.fp32)


def test_passes_without_a_gradient_alone_go_there(lite0: Classifier) -> None:
    asked: list[int] = []

    def forward(inputs: Tensor) -> Tensor:
        asked.append(len(inputs))
        return lite0.fast_network(inputs)

    evaluate = Evaluator(lite0.network, lite0.fast_network, 2, forward_network=forward)
    targets = torch.zeros(3, dtype=torch.int64)
    with torch.inference_mode():
        evaluate.logits(images(3))
        evaluate.probability(images(3), targets)
    assert asked == [2, 1, 2, 1] and (evaluate.forwards, evaluate.backwards) == (6, 0)
    evaluate.gradient(images(3), targets)
    assert len(asked) == 4 and (evaluate.forwards, evaluate.backwards) == (9, 3)


WORDS = ["method=rise", "resolution=224", "method.masks=60", "data.limit=2", "protocol.n_steps=10", "chunk_size=1"]


def test_a_run_has_the_same_areas_and_goes_on_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise UserError("no such thing")

    told: list[str] = []

    def run(folder: str, *words: str) -> list[list[float]]:
        run = prepare(compose_config([*WORDS, f"results_dir={tmp_path / folder}", *words]))
        rows = execute(run, lambda _count, _rows: None, tell=told.append).rows
        (written,) = (tmp_path / folder).rglob("run.json")
        described = json.loads(written.read_text())
        assert described["forward"] == folder and ("openvino" in described["versions"]) == (folder == "openvino")
        return [[float(row["deletion_auc"]), float(row["insertion_auc"])] for row in rows]

    usual = run("torch")
    begun = run("openvino", "evaluate.forward=openvino", "data.limit=1")
    continued = run("openvino")
    assert not told and continued[:1] == begun
    assert continued == run("openvino", "evaluate.forward=openvino", "seed=0") and not told
    assert usual != continued, "OpenVINO rounds otherwise"
    torch.testing.assert_close(torch.tensor(continued), torch.tensor(usual), rtol=0, atol=1e-4)
    monkeypatch.setattr(OpenVINOForward, "__init__", refused)
    _compiled.cache_clear()
    assert continued == run("openvino"), "nothing is to be computed"
    with pytest.raises(UserError, match=r"began with evaluate.forward=openvino, and goes on so: .* \(no such thing\)"):
        run("openvino", "data.limit=3")
    monkeypatch.undo()
    assert usual == run("torch", "evaluate.forward=openvino")
    assert len(told) == 1 and "began with evaluate.forward=torch and goes on so" in told[0]


def test_it_is_of_the_cpu(tmp_path: Path) -> None:
    run = prepare(compose_config([*WORDS, f"results_dir={tmp_path}"]))
    assert run.forward_network(Forward.torch) is None and run.forward_network(None) is None
    with pytest.raises(UserError, match="is of the CPU alone, and the device is cuda"):
        replace(run, device=torch.device("cuda")).forward_network(Forward.openvino)
