"""What a GPU has to show, each on the CPU too: `make test-gpu` runs those of CUDA, `make test` the others."""

from __future__ import annotations

import copy
import resource
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from test_contract import ITERATIVE, SHORT, inputs, toy_network
from torch import Tensor, nn
from toys import SmallConv, toy_image

from igos_bench.batch import generator
from igos_bench.clock import Clock, peak_memory_mb
from igos_bench.config import ModelConfig, Precision, ProtocolConfig
from igos_bench.evaluate import Evaluator
from igos_bench.fast import GRADIENT_TOLERANCE
from igos_bench.methods import get_method, method_names
from igos_bench.metrics import Protocol, deletion_insertion, rank
from igos_bench.models import load_classifier
from igos_bench.perturb import Baseline, blend, upsample, upsample_adjoint
from igos_bench.precision import allow_tf32
from igos_bench.prepare import forbid_shortcuts
from igos_bench.rates import Way, measure_rates

CPU = torch.device("cpu")
DEVICES = [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)]
on_each = pytest.mark.parametrize("device", DEVICES, ids=str)
RESOLUTION = {"rise": 224, "integrated_gradients": 224, "grad_cam": 14, "excitation_bp": 14}
PROTOCOL = Protocol.from_config(ProtocolConfig(n_steps=5))
COUNT = 2


@pytest.fixture(autouse=True)
def as_a_run_is_prepared() -> None:
    forbid_shortcuts()


@cache
def evaluator_on(device: torch.device, batch_size: int, dtype: torch.dtype = torch.float32) -> Evaluator:
    network, places = toy_network()
    network = copy.deepcopy(network).to(device, dtype)
    return Evaluator(network, network, batch_size, layers={r: network[place] for r, place in places.items()})


@cache
def explain(
    name: str, device: torch.device, batch_size: int, dtype: torch.dtype = torch.float32, turn: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps, and under them deletion and insertion curves, of some images; given back on the CPU."""
    method: Any = get_method(name, SHORT.get(name, {}) | ({"masks": 10} if name == "rise" else {}))
    images, _, targets = (tensor[:COUNT].to(device) for tensor in inputs())
    images, evaluate = images.to(dtype), evaluator_on(device, batch_size, dtype)
    maps = method(
        evaluate,
        images,
        targets,
        baselines=method.baseline(images),
        resolution=RESOLUTION.get(name, 28),
        generators=[generator(0, name, f"image{i}") for i in range(len(images))],
        run_generator=generator(0, name),
    )
    curves = deletion_insertion(evaluate, PROTOCOL, images, targets, maps)
    assert {maps.device.type, curves.deletion.device.type} == {device.type}
    return maps.cpu(), curves.deletion.cpu(), curves.insertion.cpu()


@on_each
@pytest.mark.parametrize("name", method_names())
def test_twice_gives_the_same_bits(name: str, device: torch.device) -> None:
    with warnings.catch_warnings():
        # torch warns of what it has no deterministic algorithm for. The network's own pooling is deterministic as long
        # as its windows do not overlap, which torch does not look at.
        warnings.filterwarnings("error", message="(?!.*pool).*deterministic")
        first, second = (explain(name, device, 2, turn=turn) for turn in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@on_each
@pytest.mark.parametrize("name", method_names())
def test_parity_with_the_cpu(name: str, device: torch.device) -> None:
    """With micro-batches of another size. Areas, as ranks of nearly equal elements may change places."""
    dtype = torch.float64 if name in ITERATIVE else torch.float32  # they amplify rounding
    here, reference = explain(name, device, 2, dtype), explain(name, CPU, 3, dtype)
    maps, others = here[0].flatten(1), reference[0].flatten(1)
    assert (maps - others).norm(dim=1).div(others.norm(dim=1)).max() < 1e-3
    for curve, other in zip(here[1:], reference[1:], strict=True):
        assert (curve.mean(1) - other.mean(1)).abs().max() < 1e-3


@on_each
def test_a_real_network_gives_the_cpus_logits_and_gradients(device: torch.device) -> None:
    """Folded, channels last, and the fused calls of the CPU against none on a GPU; random weights."""
    config = ModelConfig(architecture="efficientnet_lite0", weights=None, package=None, mean=[0.5] * 3, std=[0.5] * 3)
    classifier = load_classifier(config, device, seed=0)
    plain = load_classifier(config, CPU, seed=0).network
    images = torch.stack([toy_image(seed, 224) for seed in range(3)])
    targets = plain(images).argmax(1)
    expected = Evaluator(plain, plain, 3).gradient(images, targets, of="logit")
    found = Evaluator(classifier.network, classifier.fast_network, 2).gradient(
        images.to(device), targets.to(device), of="logit"
    )
    assert classifier.folded
    assert (found[0].cpu() - expected[0]).abs().max() < 1e-3
    assert (found[1].cpu() - expected[1]).norm() < GRADIENT_TOLERANCE * expected[1].norm()  # kinks of ReLUs


@on_each
def test_perturbed_images_are_the_cpus(device: torch.device) -> None:
    images, masks = torch.stack([toy_image(seed, 224) for seed in range(2)]), toy_image(2, 28)[:2, None]
    for kind in ("blur", "mean", "rise_blur"):
        baseline = Baseline(kind, 11, 5.0)
        assert (baseline(images.to(device)).cpu() - baseline(images)).abs().max() < 1e-5
    blended = blend(images.to(device), 0 * images.to(device), masks.to(device))
    assert (blended.cpu() - blend(images, 0 * images, masks)).abs().max() < 1e-5
    adjoint = upsample_adjoint(images[:, :1].to(device), 28)
    assert (adjoint.cpu() - upsample_adjoint(images[:, :1].double(), 28)).abs().max() < 1e-3
    assert torch.equal(adjoint, upsample_adjoint(images[:, :1].to(device), 28))


class Hungry(nn.Module):
    """Really asks for memory: for more than there is, where it gets more than `most` inputs."""

    def __init__(self, most: int, device: torch.device) -> None:
        super().__init__()
        self.body, self.most = SmallConv(0).to(device), most
        # What a CPU can address: it promises more than it has, and kills whoever takes it at its word.
        self.all = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 2**48

    def forward(self, images: Tensor) -> Tensor:
        size = 2 * self.all if len(images) > self.most else 1
        torch.empty(size, dtype=torch.uint8, device=images.device)
        logits: Tensor = self.body(images)
        return logits


@on_each
@pytest.mark.parametrize("what", ["probability", "gradient"])
def test_real_memory_that_runs_out_halves_the_micro_batch(what: str, device: torch.device) -> None:
    network = Hungry(2, device)
    images = torch.stack([toy_image(seed) for seed in range(7)]).to(device)
    targets = torch.arange(7, device=device) % 5
    evaluate = Evaluator(network, network, batch_size=8)
    with pytest.warns(UserWarning, match="out of memory") as said:
        found = getattr(evaluate, what)(images, targets)
    assert str(said[0].message) == "out of memory at a micro-batch of 7: going on with 4"
    assert evaluate.batch_size == 2
    expected = getattr(Evaluator(network.body, network.body, batch_size=2), what)(images, targets)
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    assert all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in pairs)


@on_each
def test_the_search_for_a_micro_batch_stops_where_memory_ends(device: torch.device) -> None:
    ways = {"hungry": Way(Hungry(2, device))}
    options: dict[str, Any] = {"precision": Precision.fp32, "device": device, "rounds": 1, "input_size": 32}
    assert {rate.size for rate in measure_rates(ways, (1, 2, 4), backward=True, **options)} == {1, 2}


def in_use_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


@on_each
def test_peak_memory_has_what_was_used_for_a_moment(device: torch.device) -> None:
    before = peak_memory_mb(device)
    used = torch.ones(int(before - in_use_mb(device) + 200), 2**18, device=device)  # a MiB each
    del used
    assert peak_memory_mb(device) > before + 100


@on_each
def test_memory_does_not_grow_with_the_number_of_inputs(device: torch.device) -> None:
    """Gradients are streamed, and inputs made, a micro-batch at a time."""
    evaluate, image = evaluator_on(device, 2), toy_image(0, 224).to(device)
    peaks = []
    for count in (2, 8, 80):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

        def build(rows: slice) -> Tensor:
            return image.expand(rows.stop - rows.start, -1, -1, -1)

        for _ in evaluate.gradients(build, torch.zeros(count, dtype=torch.long, device=device)):
            pass
        peaks.append(peak_memory_mb(device))
    assert peaks[2] < peaks[1] + 8, "MiB; 72 more inputs alone are 41"


@on_each
def test_a_lap_waits_for_what_the_device_has_begun(device: torch.device) -> None:
    """Work that was begun before a lap ends is in that lap, and not in the next one."""
    size = 6000 if device.type == "cuda" else 1000
    matrix = torch.rand(size, size, device=device)
    matrix @ matrix  # chooses a kernel
    clock = Clock(device)
    for _ in range(10):
        matrix = (matrix @ matrix).clamp(0, 1)
    work, idle = clock.lap(), clock.lap()
    assert work > 5 * idle


class Watching(nn.Module):
    """Writes down whether TF32 is allowed, in its forward and in its backward pass."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.body, self.seen = SmallConv(0).to(device), list[tuple[bool, bool]]()

    def forward(self, images: Tensor) -> Tensor:
        self.look()
        logits: Tensor = self.body(images)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self.look())
        return logits

    def look(self) -> None:
        self.seen.append(switches())


def switches() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@on_each
@pytest.mark.parametrize("precision", Precision)
def test_tf32_is_for_the_network_alone(precision: Precision, device: torch.device) -> None:
    network = Watching(device)
    evaluate = Evaluator(network, network, precision=precision)
    images, targets = toy_image(0)[None].to(device), torch.zeros(1, dtype=torch.long, device=device)
    evaluate.gradient(images, targets)
    evaluate.activations(images, targets, network.body.features)
    evaluate.probability(lambda rows: network.look() or images, targets)
    inside = (precision is Precision.tf32,) * 2
    assert network.seen == [inside] * 4 + [(False, False), inside]
    evaluate.probability(images, targets, in_float32=True)
    assert network.seen[-1] == (False, False)
    with pytest.raises(RuntimeError, match="channels"):
        evaluate.logits(images[:, :1])
    assert switches() == (False, False)


@on_each
def test_tf32_rounds_where_it_can(device: torch.device) -> None:
    """Its mantissa has ten bits: products of numbers with more are off by about a thousandth, and no more."""
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.rand(256, 256, generator=draw).to(device) for _ in range(2))
    exact = a.double() @ b.double()
    errors = {}
    for precision in (Precision.fp32, Precision.tf32):
        with allow_tf32(precision):
            errors[precision] = float(((a @ b - exact) / exact).abs().max())
    assert errors[Precision.fp32] < 2e-6
    can = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    assert (2e-6 if can else 0) < errors[Precision.tf32] < 2e-3


def test_perturbing_and_ranking_stay_where_the_tensors_are() -> None:
    """On torch's `meta` device a tensor made for the CPU on the way would be an error."""
    images, masks = torch.empty(2, 3, 224, 224, device="meta"), torch.empty(2, 1, 28, 28, device="meta")
    for kind in ("blur", "mean", "rise_blur"):
        assert Baseline(kind, 11, 5.0)(images).device.type == "meta"
    assert blend(images, images, masks).shape == images.shape
    assert upsample(masks, 224).shape == (2, 1, 224, 224)
    assert upsample_adjoint(images[:, :1], 28).shape == masks.shape
    assert (rank(masks).shape, rank(masks).device.type) == ((2, 28 * 28), "meta")
