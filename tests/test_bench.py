"""scripts/bench.py: its arithmetic, that it stops where results differ, and its peers."""

from __future__ import annotations

import copy
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import literal
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from toys import SmallConv, toy_image

from igos_bench import rates
from igos_bench.config import Device, ModelConfig, Precision, ProtocolConfig
from igos_bench.errors import UserError
from igos_bench.evaluate import Evaluator
from igos_bench.methods import ExcitationBp, GradCam, IntegratedGradients, Rise
from igos_bench.methods.rise import RandomMasks
from igos_bench.metrics import Protocol
from igos_bench.models import Classifier, load_classifier
from igos_bench.overrides import compose_config
from igos_bench.prepare import prepare
from igos_bench.rates import Rate

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

import bench  # noqa: E402
import bench_compare  # noqa: E402
import bench_report  # noqa: E402
import peers  # noqa: E402
from bench_cases import Block, Case, Peer, areas, explain, igos, largest, mean_absolute, relative  # noqa: E402
from bench_compare import DisagreementError, References, compare  # noqa: E402
from bench_setup import QUICK, ClockedEvaluator, Setting, start  # noqa: E402
from peers import AsReleased, Subject  # noqa: E402
from random_vgg19 import standardised  # noqa: E402

SIZE = 32
CPU = torch.device("cpu")
IMAGES = torch.stack([toy_image(seed, SIZE) for seed in range(2)])


# The arithmetic.

NOW = [0.0]  # seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands still but while a call says that it takes time: other work on the machine is no matter of arithmetic."""
    monkeypatch.setattr(bench_compare, "time", SimpleNamespace(perf_counter=lambda: NOW[0]))


def timed_case(ours: Tensor, theirs: Tensor) -> Case:
    """2 images: ours takes 20 ms, 16 of them in 6 + 2 passes; theirs 60 ms and 8 + 4, 2 of them an image surplus."""
    network = SmallConv(0)
    evaluate, released = ClockedEvaluator(network, network), AsReleased(network, Precision.fp32)

    def run_ours() -> Tensor:
        NOW[0] += 0.02
        evaluate.seconds_in_passes += 0.016
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


def ceilings(precision: str = "fp32") -> list[bench_report.Ceiling]:
    """1 ms forward and 3 ms with the backward pass, the second being the better one; 0.5 and 1.5 in bf16."""
    share = 0.5 if precision == "bf16" else 1
    rates = [Rate("folded", 4, share * seconds) for seconds in (0.002, 0.001, 0.004, 0.009, 0.003, 0.012)]
    name = ("efficientnet_lite0", precision)
    return [bench_report.Ceiling(*name, False, *rates[:3]), bench_report.Ceiling(*name, True, *rates[3:])]


@pytest.mark.usefixtures("clock")
def test_ratio_passes_and_efficiency() -> None:
    case = timed_case(torch.ones(2, 1), 1.05 * torch.ones(2, 1))
    (result,) = compare(case, "efficientnet_lite0", Precision.fp32, rounds=3)
    assert result.ours_seconds == pytest.approx(0.01)
    assert result.ratio == pytest.approx(3)
    assert result.ratio_min <= result.ratio <= result.ratio_max and result.pairs == 3
    assert (result.ours_forwards, result.ours_gradients) == (3, 1)
    assert (result.theirs_forwards, result.theirs_gradients) == (4, 2)
    assert result.difference == pytest.approx(0.05)
    result.set_efficiency(ceilings())
    assert result.efficiency == pytest.approx((2 * 0.001 + 2 * 0.003) / result.ours_seconds)
    assert result.ours_in_passes == pytest.approx(0.8)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("searches_in_float32", "forward"), [(False, 0.0005), (True, 0.001)])
def test_efficiency_in_bf16(searches_in_float32: bool, forward: float) -> None:
    case = timed_case(torch.ones(2, 1), torch.ones(2, 1))
    case.peers[0].network.searches_in_float32 = searches_in_float32
    (result,) = compare(case, "efficientnet_lite0", Precision.bf16, rounds=1)
    result.set_efficiency(ceilings("bf16"))
    assert (result.efficiency is None) == searches_in_float32, "float32's ceiling was not measured"
    result.set_efficiency(ceilings() + ceilings("bf16"))
    assert result.efficiency == pytest.approx((2 * forward + 2 * 0.0015) / result.ours_seconds)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("short", "taken"), [(1.0, 4), (0.2, 3), (0.1, 2)])
def test_short_cases_have_more_pairs(monkeypatch: pytest.MonkeyPatch, short: float, taken: int) -> None:
    """A pair takes 80 ms: three of them 240, two 160."""
    monkeypatch.setattr(bench_compare, "SHORT", short)
    case = timed_case(torch.ones(2, 1), torch.ones(2, 1))
    assert [result.pairs for result in compare(case, "vgg19", Precision.fp32, rounds=2, pairs=4)] == [taken]


@pytest.mark.usefixtures("clock")
def test_a_long_first_call_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_compare, "LONG", 0.01)
    case = timed_case(torch.ones(2, 1), torch.ones(2, 1))
    (result,) = compare(case, "vgg19", Precision.fp32, rounds=1)
    assert result.pairs == 1 and result.ours_in_passes == pytest.approx(0.8)
    assert case.evaluate.forwards == 8, "one call"


def test_bf16_may_stray_from_fp32_hardly_further_than_the_peer() -> None:
    references: References = {}
    exact = torch.ones(2, 1)
    compare(timed_case(exact, exact), "vgg19", Precision.fp32, rounds=1, references=references)

    def ours_and_theirs(ours: float, theirs: float, network: str = "vgg19") -> None:
        case = replace(timed_case(ours * exact, theirs * exact), tolerance=0.9)
        compare(case, network, Precision.bf16, rounds=1, references=references)

    ours_and_theirs(0.75, 1.11)  # 1.5 x 0.11 + 0.1 is allowed
    with pytest.raises(
        DisagreementError, match=r"igos \(short\) on vgg19 in bf16 is 0.3 \(largest\) from ours in fp32"
    ):
        ours_and_theirs(0.7, 1.11)
    ours_and_theirs(0.7, 1.11, "efficientnet_lite0")  # of which there is no fp32
    assert references.keys() == {("vgg19", "igos", "short")} and references["vgg19", "igos", "short"].found is exact


def test_time_in_passes() -> None:
    """A pass of 20 ms an input; where memory runs out the halves count once, what comes between passes never."""

    class Slow(SmallConv):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 2:
                raise MemoryError
            time.sleep(0.02 * len(images))
            return super().forward(images)

    network = Slow(0)
    evaluate = ClockedEvaluator(network, network, batch_size=4)
    inputs, targets = IMAGES.repeat(2, 1, 1, 1), torch.zeros(4, dtype=torch.long)
    with pytest.warns(UserWarning, match="out of memory at a micro-batch of 4"):
        evaluate.logits(inputs)
    assert 0.08 <= evaluate.seconds_in_passes < 0.13
    for _ in evaluate.gradients(inputs, targets):
        time.sleep(0.1)
    assert 0.16 <= evaluate.seconds_in_passes < 0.25


def test_each_of_two_peers_has_its_own_passes() -> None:
    case = timed_case(torch.ones(2, 1), torch.ones(2, 1))
    both = Case(**{**vars(case), "peers": case.peers * 2})
    assert [r.theirs_forwards for r in compare(both, "vgg19", Precision.fp32, rounds=1)] == [4, 4]


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (torch.full((2, 1), 1.2), r"igos \(short\) on vgg19 in fp32 differs from literal by 0.2 \(largest\)"),
        (torch.full((2, 1), torch.nan), "differs from literal by nan"),
        (torch.zeros(2, 1), "literal gives zeros alone, which shows nothing"),
    ],
)
def test_results_that_differ_have_no_time(theirs: Tensor, message: str) -> None:
    with pytest.raises(DisagreementError, match=message):
        compare(timed_case(torch.ones(2, 1), theirs), "vgg19", Precision.fp32, rounds=1)


@pytest.mark.parametrize("count", [4, 5])
def test_more_than_half_of_the_images_agree(count: int, tmp_path: Path) -> None:
    """A line search may take another step in some images, but not in half of them; in bf16 it may."""

    def compared(off: int, precision: Precision) -> bench_report.Result:
        ours, theirs = torch.ones(count, 1), torch.ones(count, 1)
        theirs[:off] = 9
        case = replace(timed_case(ours, theirs), images=count, by_half=True)
        (result,) = compare(case, "efficientnet_lite0", precision, rounds=1)
        return result

    most = count // 2 + 1
    result = compared(count - most, Precision.fp32)
    assert result.difference == 0 and result.images_that_agree == most
    assert str(result).endswith(f"results differ by 0, {most} of {count} images agree")
    with pytest.raises(DisagreementError, match="differs from" if count % 2 else "in 2 of 4 images, no more than half"):
        compared(count - most + 1, Precision.fp32)
    if count % 2 == 0:
        assert compared(count // 2, Precision.bf16).images_that_agree == count // 2
    bench_report.write_csv(list(ceilings()), [result], tmp_path / "bench.csv", CPU)
    table = pd.read_csv(tmp_path / "bench.csv")
    assert table.columns[table.columns.get_loc("machine") - 1] == "images_that_agree"
    assert table["images_that_agree"].tolist()[2] == most


def test_distances_are_an_images() -> None:
    ours, theirs = torch.tensor([[[0.0, 3.0]], [[1.0, 1.0]]]), torch.tensor([[[0.0, 2.0]], [[1.0, 5.0]]])
    assert largest(ours, theirs).tolist() == [1, 4]
    assert mean_absolute(ours, theirs).tolist() == [0.5, 2]
    assert relative(ours, theirs).tolist() == pytest.approx([1 / 2, 4 / 26**0.5])
    case = replace(timed_case(ours, theirs), distances=mean_absolute)
    assert case.difference(ours, theirs) == 2 and replace(case, by_half=True).difference(ours, theirs) == 0.5


@pytest.mark.usefixtures("clock")
def test_what_is_written(tmp_path: Path) -> None:
    results = compare(timed_case(torch.ones(2, 1), torch.ones(2, 1)), "efficientnet_lite0", Precision.fp32, rounds=2)
    results[0] = replace(results[0], ratio_min=2.2, ratio=2.3, ratio_max=2.5, efficiency=0.95)
    results.append(replace(results[0], precision="tf32", efficiency=0.64, ratio=7.5, ratio_max=8))
    bench_report.write_csv(list(ceilings()), results, tmp_path / "bench.csv", CPU)
    table = pd.read_csv(tmp_path / "bench.csv")
    assert table["method"].tolist() == ["ceiling: forward", "ceiling: forward + backward", "igos", "igos"]
    assert table["ours_seconds"].tolist()[:2] == [0.001, 0.003] and table["ratio"].tolist()[:2] == [4, 4]
    assert table.loc[2, "required_ratio"] == 2.4 and table.loc[2, "efficiency"] == 0.95
    assert table["commit"].notna().all() and table["versions"].str.contains("torch ").all()
    text = bench_report.printed(list(ceilings()), results)
    assert "2.30x (2.4) !" in text and "0.95 = 0.80 x 1.19  " in text
    assert "efficientnet_lite0 tf32" in text and "7.50x  " in text and "0.64 = 0.80 x 0.80 !" in text
    bench_report.draw(results, tmp_path / "bench.png", CPU)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_every_precision_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_report.plt, "close", lambda _figure: None)
    (result,) = compare(timed_case(torch.ones(2, 1), torch.ones(2, 1)), "efficientnet_lite0", Precision.fp32, rounds=1)
    bench_report.draw([replace(result, precision=p) for p in ("fp32", "bf16", "tf32")], tmp_path / "bench.png", CPU)
    figure = plt.gcf()
    plt.close(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fp32", "bf16", "tf32"]
    bars = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for bar in figure.axes[0].patches)
    assert len(bars) == 3 and all(above[1] <= below[0] for above, below in pairwise(bars))


TINY = Setting(1, 1, 1, 1, 1, 1, 1, 1, 1, (1,), 1, 1)


@pytest.mark.parametrize(
    ("end", "words", "stem", "code"),
    [
        (None, [], "bench", 0),
        (DisagreementError("not the same"), [], "bench", 1),
        (None, ["networks=[vgg19]"], "bench_part", 0),
        (None, ["precisions=[bf16]", "quick=true"], "bench_quick_part", 0),
        (None, ["methods=[igos,mask]"], "bench_part", 0),
        (KeyboardInterrupt(), [], "bench_part", 130),
        (UserError("no such thing"), ["quick=true"], "bench_quick_part", 2),
        (RuntimeError("nobody expected this"), [], "bench_part", None),
    ],
)
def test_what_was_measured_is_written_however_it_ends(
    end: BaseException | None,
    words: list[str],
    stem: str,
    code: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The bench of a tiny network, whose second case ends it; what a whole one has left stays."""
    tiny = ["model=timm", "model.architecture=test_byobnet", "model.weights=null", "data.limit=1", "device=cpu"]
    run = prepare(compose_config([*tiny, "method=igos", "resolution=28"]))

    def second(_block: object) -> Case:
        if end:
            raise end
        return replace(timed_case(torch.ones(2, 1), torch.ones(2, 1)), method="mask")

    monkeypatch.setattr(bench, "find_spec", lambda _name: True)
    monkeypatch.setattr(bench, "FULL", dict.fromkeys(bench.FULL, TINY))
    monkeypatch.setattr(bench, "QUICK", dict.fromkeys(bench.QUICK, TINY))
    monkeypatch.setattr(bench, "start", lambda *_: run)
    monkeypatch.setattr(bench, "fastest_size", lambda *_: 1)
    for name, least in (("SHORTEST", 0.001), ("RUNS", 1), ("WARM_UPS", 0)):
        monkeypatch.setattr(rates, name, least)
    monkeypatch.setattr(
        bench, "CASES", [("igos", lambda _: timed_case(torch.ones(2, 1), torch.ones(2, 1))), ("mask", second)]
    )
    monkeypatch.setattr("sys.argv", ["bench.py", "device=cpu", f"out={tmp_path}", *words])
    for name in ("bench", "bench_quick"):
        (tmp_path / f"{name}.csv").write_text("that of a whole run")
    with pytest.raises(RuntimeError, match="nobody") if code is None else nullcontext():
        assert bench.main() == code
    for name in {"bench", "bench_quick"} - {stem}:
        assert (tmp_path / f"{name}.csv").read_text() == "that of a whole run"
    methods = pd.read_csv(tmp_path / f"{stem}.csv")["method"]
    assert "igos" in methods.tolist() and ("mask" in methods.tolist()) == (end is None)
    assert (tmp_path / f"{stem}.png").exists() and len(pd.read_csv(tmp_path / f"{stem}_rates.csv")) > 4
    printed = capsys.readouterr()
    assert f"written to {tmp_path / stem}.csv, .png and _rates.csv" in printed.out
    early = code not in (0, 1)
    assert ("ended before all was measured" in printed.err) == early


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("precisions=[fp32,tf32]", "precision=tf32 is of CUDA devices alone"),
        ("precisions=[]", "precisions=[]: choose from fp32"),
        ("networks=[]", "networks=[]: choose from efficientnet_lite0, vgg19"),
        ("out=/dev/null/results", "out=/dev/null/results: Not a directory"),
    ],
)
def test_a_mistake_is_told_at_the_start(
    word: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench.py", "device=cpu", "methods=[igos]", word])
    monkeypatch.setattr(bench, "start", pytest.fail)
    assert bench.main() == 2
    assert capsys.readouterr().err.startswith(f"bench: {message}")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("bench", ["methods=[rise]", "device=cuda"]),
        ("bench", ["quick=true", "networks=[vgg19]", "precisions=[bf16]", "out=a folder"]),
        ("bench-scale", ["images=[50, 500]", "out=/tmp"]),
    ],
)
def test_make_passes_every_option(target: str, words: list[str]) -> None:
    made = subprocess.run(
        ["make", "-n", "--no-print-directory", target, *words],
        cwd=SCRIPTS.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    script = f"scripts/{target.replace('-', '_')}.py"
    assert shlex.split(made.stdout.splitlines()[-1]) == [".venv/bin/python", script, *words]


@pytest.mark.long
def test_a_bench(tmp_path: Path) -> None:
    """Two methods of the real thing; without the metric nothing asks for quantus."""
    words = ["quick=true", "networks=[efficientnet_lite0]", "precisions=[fp32]", "device=cpu", f"out={tmp_path}"]
    command = [sys.executable, str(SCRIPTS / "bench.py"), *words, "methods=[grad_cam,integrated_gradients]"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    table = pd.read_csv(tmp_path / "bench_quick_part.csv").set_index("method")
    assert table.index.tolist() == [
        *("ceiling: forward", "ceiling: forward + backward", "integrated_gradients", "grad_cam")
    ]
    of_cases = table.iloc[2:]
    assert (of_cases["ratio"] > 0).all() and (of_cases["pairs"] == 2).all()
    assert of_cases["ours_in_passes"].between(0.3, 1).all()
    assert 0 < table.loc["integrated_gradients", "efficiency"] < 1.3
    assert pd.isna(table.loc["grad_cam", "efficiency"])
    (size,) = set(of_cases["ours_micro_batch"])
    assert f"our micro-batch: {size:.0f}\n" in ended.stdout
    rates = pd.read_csv(tmp_path / "bench_quick_part_rates.csv")
    assert rates.columns.tolist()[:6] == ["network", "precision", "backward", "way", "micro_batch", "seconds"]
    assert rates.columns.tolist()[6:] == ["machine", "threads", "versions", "date", "commit"]
    by_openvino = rates["way"] == "ours, by OpenVINO"
    assert rates.loc[by_openvino, ["backward", "micro_batch"]].values.tolist() == [[False, size]]
    assert len(rates) == 2 * 5 * 2 + 1, "both passes; folded or not in both memory formats, and ours; two sizes"
    fastest = rates[rates["backward"]]["seconds"].min()
    assert table.loc["ceiling: forward + backward", "ours_seconds"] <= fastest * 1.001
    assert (tmp_path / "bench_quick_part.png").stat().st_size > 1000


@pytest.mark.parametrize(("precision", "searching"), [(Precision.fp32, [False]), (Precision.bf16, [True, False])])
def test_the_literal_line_search_is_in_the_precision_of_ours(
    precision: Precision, searching: list[bool], tmp_path: Path
) -> None:
    setting = replace(QUICK["efficientnet_lite0"], images=1, together=1, batch=1)
    run = start("efficientnet_lite0", precision, setting, tmp_path, Device.cpu)
    peers_there = igos(Block.of(run, setting, micro_batch=1)).peers
    assert [peer.network.searches_in_float32 for peer in peers_there] == searching
    assert peers_there[0].name == "literal"


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
    assert relative(ours, theirs).max() < 1e-3
    assert (s.network.forwards, s.network.gradients) == passes


class _Anywhere(AsReleased):
    """There is no autocast on torch's `meta` device, which computes nothing, and mixes with no other."""

    def autocast(self, images: Tensor) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


@pytest.mark.parametrize(
    "peer",
    [
        lambda s: peers.literal_mask(s, 7, 1, 1, 2),
        lambda s: peers.captum_integrated_gradients(s, 4),
        lambda s: peers.torchray_rise_maps(s, torch.rand(3, 1, SIZE, SIZE, device="meta"), 0.5),
        lambda s: peers.rise_in_batches(s, torch.rand(3, 1, SIZE, SIZE, device="meta"), 0.5),
        lambda s: peers.torchray_excitation_bp(replace(s, targets=s.targets.to("meta")), "features"),
        # literal.igos itself asks for values, which there are none of.
        lambda s: literal.igos_direction(
            s.network, *s.images, 1, torch.ones(1, 7, 7, device="meta"), 1, 1,
            literal.draw_noise(torch.Generator(), 4, s.images[0], (0.4, 0, 0)),
        ),
    ],
)  # fmt: skip
def test_what_a_peer_makes_is_on_the_images_device(peer: Callable[[Subject], Tensor]) -> None:
    """A constant left on the CPU would end the bench on a GPU; of the others values go to numpy."""
    images = IMAGES.to("meta")
    network = _Anywhere(SmallConv(0).to("meta"), Precision.fp32)
    assert peer(Subject(network, images, images, torch.tensor([1, 2]), ["a", "b"])).device.type == "meta"


def test_quantus_computes_what_we_do() -> None:
    pytest.importorskip("quantus")
    network = SmallConv(0)
    s = subject(network)
    # Baselines of the protocol, whose kernel is too large for images so small.
    protocol = Protocol.from_config(ProtocolConfig(n_steps=24))
    s = replace(s, baselines=protocol.deletion_baseline(s.images))
    maps = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    theirs = peers.quantus_pixel_flipping(s, maps, 24)
    assert largest(areas(Evaluator(network, network), protocol, s, maps), theirs).max() < 0.01
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
    assert theirs.sum() > 0.01 and relative(ours, theirs).max() < 1e-4


def test_bf16_is_the_networks_alone() -> None:
    network = SmallConv(0)
    released = AsReleased(network, Precision.bf16)
    logits = released(IMAGES)
    assert logits.dtype == torch.float32
    assert 0 < (logits - network(IMAGES)).norm() < 0.3 * logits.norm()
    searching = AsReleased(network, Precision.bf16, searches_in_float32=True)
    assert torch.equal(searching(IMAGES), logits)
    with torch.no_grad():
        assert torch.equal(searching(IMAGES), network(IMAGES))
        assert torch.equal(released(IMAGES), logits)


def test_standardised_channels() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)).requires_grad_(False)
    before = copy.deepcopy(body)
    standardised(body, IMAGES)
    for outputs in (body[0](IMAGES), body(IMAGES)):
        deviation, mean = torch.std_mean(outputs, (0, 2, 3))
        assert (deviation - 1).abs().max() < 1e-3 and mean.abs().max() < 1e-3
    assert not torch.allclose(before(IMAGES), body(IMAGES))
    assert not any(module._forward_hooks for module in body.modules())
