"""Out of memory and bad numbers in whole runs: a reason in the image's row, never a number in a mean."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from igos_bench.batch import generator
from igos_bench.cells import read_cells
from igos_bench.formats import Row
from igos_bench.onednn import FusedConvolution
from igos_bench.overrides import compose_config
from igos_bench.perturb import Baseline
from igos_bench.prepare import Run, prepare
from igos_bench.runner import execute
from igos_bench.table import make_table

QUICK = {  # of every method: its resolution, and what makes it short
    "igos": ("resolution=14", "method.iterations=1", "method.path_steps=2"),
    "mask": ("resolution=14", "method.iterations=2"),
    "rise": ("resolution=224", "method.masks=6"),
    "integrated_gradients": ("resolution=224", "method.steps=2"),
    "grad_cam": ("resolution=7",),
    "excitation_bp": ("resolution=7",),
}
GAIN = 300.0  # of the logits: random ones are so near each other that I-GOS's steps are lost in rounding
GREY = {"bright.png": 0.9, "dark.png": 0.2, "middle.png": 0.5}

every_method = pytest.mark.parametrize("method", QUICK)


@cache
def random_weights() -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        weights = timm.create_model("test_resnet").state_dict()
    weights["fc.weight"] *= GAIN
    return weights


@dataclass(frozen=True)
class Bench:
    """A folder with three images, and weights for a network of a tenth of a second."""

    folder: Path

    def weights(self, change: Callable[[dict[str, Tensor]], object]) -> None:
        """Write weights, changed from random ones."""
        weights = {name: tensor.clone() for name, tensor in random_weights().items()}
        change(weights)
        torch.save(weights, self.folder / "weights.pth")

    def prepare(self, *words: str) -> Run:
        return prepare(
            compose_config(
                [
                    *("model=timm", "model.architecture=test_resnet", f"model.weights={self.folder / 'weights.pth'}"),
                    *("model.mean=[0,0,0]", "model.std=[1,1,1]", "data=folder", f"data.root={self.folder / 'images'}"),
                    *("protocol.n_steps=2", "chunk_size=3", f"results_dir={self.folder / 'out'}", "device=cpu", *words),
                ]
            )
        )

    def run(self, *words: str, explain: bool = True) -> dict[str, Row]:
        return rows_of(self.prepare(*words), explain=explain)

    def explain(self, method: str, *words: str) -> dict[str, Row]:
        return self.run(f"method={method}", *QUICK[method], *words)

    def n(self) -> list[int]:
        """Of every row of the table: how many images are in its mean."""
        return [int(n) for n in make_table(read_cells(self.folder / "out", allow_partial=True))["n"]]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "images").mkdir()
    draws = np.random.default_rng(0)
    for name, level in GREY.items():
        values = np.clip(255 * level + draws.normal(0, 3, (224, 224, 3)), 0, 255)
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / "images" / name)
    bench = Bench(tmp_path)
    bench.weights(lambda weights: None)
    return bench


def rows_of(run: Run, *, explain: bool = True) -> dict[str, Row]:
    return {row["image_id"]: row for row in execute(run, lambda _count, _rows: None, explain=explain).rows}


def has_no_number(row: Row) -> bool:
    return row["status"] == "failed" and "deletion_auc" not in row and "insertion_auc" not in row


# Memory


@pytest.fixture
def starve() -> Iterator[Callable[[Run, Callable[[Tensor], bool], RuntimeError], None]]:
    """Makes both networks of a run raise an error where there is too much for them, at any depth of a method."""
    handles = []

    def limit(run: Run, is_too_much: Callable[[Tensor], bool], error: RuntimeError) -> None:
        def refuse(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if is_too_much(inputs[0]):
                raise error

        for network in (run.classifier.network, run.classifier.fast_network):
            first = next(m for m in network.modules() if isinstance(m, nn.Conv2d | FusedConvolution))
            handles.append(first.register_forward_pre_hook(refuse))

    yield limit
    for handle in handles:
        handle.remove()


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.30 GiB.\nIncluding non-PyTorch memory")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")
ONEDNN = RuntimeError("could not create a primitive")


@every_method
@pytest.mark.parametrize("error", [CUDA, CPU, ONEDNN], ids=["CUDA", "CPU", "oneDNN"])
@pytest.mark.filterwarnings("ignore:out of memory at a micro-batch")
def test_memory_for_one_input_is_enough_and_an_image_that_does_not_fit_alone_fails_alone(
    bench: Bench, starve: Callable[..., None], method: str, error: RuntimeError
) -> None:
    whole = bench.explain(method, f"results_dir={bench.folder / 'whole'}")
    run = bench.prepare(f"method={method}", *QUICK[method])
    starve(run, lambda inputs: len(inputs) > 1 or float(inputs.detach().mean()) > 0.8, error)
    rows = rows_of(run)
    assert has_no_number(rows["bright.png"])
    said = str(error).partition("\n")[0]
    assert rows["bright.png"]["error"] == f"out of memory: {type(error).__name__}: {said}"
    tolerance = 1e-3 if method == "igos" else 1e-4  # its line search answers to the other micro-batches' rounding
    for name in ("dark.png", "middle.png"):
        assert rows[name]["status"] == "ok"
        for key in ("deletion_auc", "insertion_auc"):
            assert rows[name][key] == pytest.approx(whole[name][key], abs=tolerance)
    assert bench.n() == [2]
    provenance = run.directory.read_provenance()
    assert provenance and provenance["batch_size_after_out_of_memory"] == 1 < provenance["batch_size"]
    assert "micro-batch cut to 1: out of memory" in (run.directory.path / "timing.csv").read_text()


@pytest.mark.parametrize("method", ["igos", "mask"])
@pytest.mark.filterwarnings("ignore:out of memory at a micro-batch")
def test_an_image_whose_noise_does_not_fit_fails_alone(
    bench: Bench, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bench.explain(method, f"results_dir={bench.folder / 'whole'}")
    draw, starved = torch.randn, generator(0, method, "bright.png").initial_seed()

    def scarce(shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
        return draw((2**55,) if generator.initial_seed() == starved else shape, generator=generator)

    monkeypatch.setattr(torch, "randn", scarce)
    rows = bench.explain(method)
    assert has_no_number(rows["bright.png"])
    assert rows["bright.png"]["error"].startswith("out of memory: RuntimeError: [enforce fail")
    tolerance = 1e-3 if method == "igos" else 1e-4  # as above
    for name in ("dark.png", "middle.png"):
        for key in ("deletion_auc", "insertion_auc"):
            assert rows[name][key] == pytest.approx(whole[name][key], abs=tolerance)


def test_baselines_are_made_beside_the_network(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made, blur = [], Baseline.__call__

    def noted(self: Baseline, images: Tensor) -> Tensor:
        made.append((threading.current_thread().name.partition("_")[0], self, len(images)))
        return blur(self, images)

    monkeypatch.setattr(Baseline, "__call__", noted)
    other = "{kind: blur, kernel_size: 5, sigma: 2.0}"
    assert all(row["status"] == "ok" for row in bench.explain("igos", f"method.baseline={other}").values())
    assert sorted(made, key=str) == sorted(
        3 * [("decode", Baseline("blur", 5, 2.0), 1), ("decode", Baseline(), 1)], key=str
    )


def test_an_image_whose_baseline_does_not_fit_fails_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench.explain("grad_cam", f"results_dir={bench.folder / 'whole'}")
    blur = Baseline.__call__

    def scarce(self: Baseline, images: Tensor) -> Tensor:
        return images.new_zeros(2**55) if images.mean() > 0.8 else blur(self, images)

    monkeypatch.setattr(Baseline, "__call__", scarce)
    rows = bench.explain("grad_cam")
    assert has_no_number(rows["bright.png"])
    assert rows["bright.png"]["error"].startswith("out of memory: RuntimeError: [enforce fail")
    for name in ("dark.png", "middle.png"):
        assert rows[name]["deletion_auc"] == pytest.approx(whole[name]["deletion_auc"], abs=1e-4)


# Bad numbers of the network


def overflows_above(level: float) -> Callable[[dict[str, Tensor]], None]:
    """NaN where 3 x 3 pixels are brighter than that: infinity minus infinity, of weights that are finite."""

    def change(weights: dict[str, Tensor]) -> None:
        weights["conv1.0.weight"][0] = 1e24
        weights["conv1.1.bias"][0] = -level * 27 * 1e24
        weights["conv1.3.weight"][:2] = 0
        weights["conv1.3.weight"][:2, 0, 1, 1] = 1e20
        weights["conv1.6.weight"][:, 0], weights["conv1.6.weight"][:, 1] = 1, -1

    return change


LEAVES_AS_IT_IS = "the network is left as it is: made faster, its logits move by nan"


def test_an_image_for_which_the_network_has_no_numbers(bench: Bench) -> None:
    """Random images are not so bright, so that the fast network is taken; its ReLUs keep NaN."""
    bench.weights(overflows_above(0.8))
    spot = Image.new("RGB", (224, 224), (50, 50, 50))
    spot.paste("white", (100, 100, 108, 108))  # which the blur spreads out
    spot.save(bench.folder / "images" / "bright.png")
    run = bench.prepare("method=grad_cam", *QUICK["grad_cam"])
    bright = torch.tensor(np.asarray(spot)).permute(2, 0, 1)[None] / 255
    assert run.classifier.network(bright).isnan().all()
    assert run.classifier.fast_network is not run.classifier.network
    assert run.classifier.fast_network(bright).isnan().all()
    rows = rows_of(run)
    assert has_no_number(rows["bright.png"])
    assert rows["bright.png"]["error"] == "the network's logits are NaN or infinite for 1 of 1 inputs"
    assert rows["dark.png"]["status"] == rows["middle.png"]["status"] == "ok"
    assert bench.n() == [2]


@pytest.mark.parametrize(("method", "finite"), [("igos", False), ("mask", False), ("rise", True), ("grad_cam", True)])
def test_perturbed_images_for_which_the_network_has_no_numbers(bench: Bench, method: str, finite: bool) -> None:
    """Noise lifts places of the middle image over the level, whereas RISE's masks and blur do not."""
    bench.weights(overflows_above(0.5125))
    (bench.folder / "images" / "bright.png").unlink()
    with pytest.warns(UserWarning, match=LEAVES_AS_IT_IS):
        rows = bench.explain(method)
    assert rows["dark.png"]["status"] == "ok"
    if finite:
        assert rows["middle.png"]["status"] == "ok"
    else:
        assert has_no_number(rows["middle.png"])
        assert "the network's logits are NaN or infinite for" in rows["middle.png"]["error"]
    assert bench.n() == [1 + finite]


@pytest.mark.filterwarnings("ignore:the network is left as it is")
def test_a_protocol_under_which_the_network_has_no_numbers(bench: Bench) -> None:
    """What is deleted has the mean colour under `rise`, which is brighter than the dark image and its blur."""
    bench.weights(overflows_above(0.4))
    for name in ("bright.png", "middle.png"):
        (bench.folder / "images" / name).unlink()
    assert bench.explain("grad_cam")["dark.png"]["status"] == "ok"
    row = bench.run("method=grad_cam", *QUICK["grad_cam"], "protocol=rise", explain=False)["dark.png"]
    assert has_no_number(row) and "the network's logits are NaN or infinite for" in row["error"]
    assert sorted(bench.n()) == [0, 1]


@every_method
def test_a_network_that_sees_nothing(bench: Bench, method: str) -> None:
    bench.weights(lambda weights: (weights["fc.weight"].zero_(), weights["fc.bias"].copy_(torch.arange(1000) / 100)))
    rows = bench.explain(method)
    assert all(has_no_number(row) and row["target"] == 999 for row in rows.values())
    reasons = {row["error"] for row in rows.values()}
    if method == "rise":
        (reason,) = reasons
        assert reason.startswith("the network's probability is 0.00995") and "whatever is deleted or inserted" in reason
    else:
        assert reasons == {"the saliency map is 0 everywhere: it ranks nothing"}
        assert {row["ties"] for row in rows.values()} == {1.0}
    assert bench.n() == [0]


def test_a_network_that_predicts_no_class(bench: Bench) -> None:
    bench.weights(lambda weights: (weights["fc.weight"].zero_(), weights["fc.bias"].zero_()))
    for row in bench.explain("rise").values():
        assert has_no_number(row)
        assert row["error"] == "the network's logits are the same for all classes: it predicts none of them"


# Bad numbers of a map


def test_a_map_that_is_the_same_everywhere(bench: Bench) -> None:
    """Grad-CAM's ReLU leaves nothing where every activation speaks against the class."""
    bench.weights(lambda weights: weights["fc.weight"].copy_(-weights["fc.weight"].abs()))
    rows = bench.explain("grad_cam")
    for row in rows.values():
        assert has_no_number(row) and row["ties"] == 1.0
        assert row["error"] == "the saliency map is 0 everywhere: it ranks nothing"
    assert bench.n() == [0]


def test_a_stored_map_that_is_the_same_everywhere(bench: Bench) -> None:
    draws = np.random.default_rng(0)
    (bench.folder / "maps").mkdir()
    for name in GREY:
        values = np.full((4, 4), 0.25) if name == "dark.png" else draws.integers(0, 2, (4, 4))
        np.save(bench.folder / "maps" / f"{name}.npy", values)
    for protocol in ("paper", "rise"):
        rows = bench.run(f"maps={bench.folder / 'maps'}", "name=theirs", f"protocol={protocol}", explain=False)
        assert has_no_number(rows["dark.png"]) and rows["dark.png"]["ties"] == 1.0
        assert rows["dark.png"]["error"] == "the saliency map is 0.25 everywhere: it ranks nothing"
        for name in ("bright.png", "middle.png"):  # of two values: all tied, and yet a ranking
            assert rows[name]["status"] == "ok" and rows[name]["ties"] == 1.0
    assert bench.n() == [2, 2]


def test_a_map_with_holes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench.prepare("method=grad_cam", *QUICK["grad_cam"])
    explain = type(run.method).__call__

    def with_holes(self: object, evaluate: object, images: Tensor, *rest: object, **more: object) -> Tensor:
        maps: Tensor = explain(self, evaluate, images, *rest, **more)  # type: ignore[operator]
        maps[images.mean((1, 2, 3)) > 0.8, 0, 2, 2:4] = float("nan")
        return maps

    monkeypatch.setattr(type(run.method), "__call__", with_holes)
    rows = rows_of(run)
    assert has_no_number(rows["bright.png"])
    assert rows["bright.png"]["error"] == "grad_cam gave a saliency map with 2 of 49 values NaN or infinite"
    assert rows["dark.png"]["status"] == rows["middle.png"]["status"] == "ok"
    assert bench.n() == [2]
