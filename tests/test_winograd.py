"""Winograd's convolution: what torch's own gives, of every size of map, and where the fast network runs it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from igos_bench import fuse, onednn, winograd
from igos_bench.fold import fold_batch_norms
from igos_bench.winograd import OUTPUTS, TILES, Winograd, pays


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


# Odd sizes, several inputs to a block with a rest, inputs in equal parts and with a smaller last one, no full tile.
SHAPES = [
    (2, 3, 8, 12),
    (2, 3, 5, 7),
    (30, 2, 14, 14),
    (2, 3, 57, 58),
    (2, 2, 64, 61),
    (1, 2, 115, 90),
    (3, 2, 1, 2),
    (0, 2, 8, 8),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_outputs_and_gradients_are_torchs_in_float64(shape: tuple[int, int, int, int], has_bias: bool) -> None:
    weight, bias = drawn(4, shape[1], 3, 3), drawn(4) if has_bias else None
    inputs = drawn(*shape).requires_grad_()
    outputs = F.conv2d(inputs, weight, bias, padding=1)
    gradient = drawn(*outputs.shape)
    (expected,) = torch.autograd.grad(outputs, inputs, gradient)
    convolution = Winograd(weight, bias)
    found = convolution.convolve(inputs.detach().contiguous(memory_format=torch.channels_last))
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, outputs.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(convolution.input_gradient(gradient), expected, rtol=0, atol=1e-12)


def test_shapes_above_have_every_kind_of_block() -> None:
    tiles = [math.ceil(height / OUTPUTS) * math.ceil(width / OUTPUTS) for _, _, height, width in SHAPES]
    assert any(TILES // many < shape[0] for many, shape in zip(tiles, SHAPES, strict=True) if many < TILES)
    assert any(many > TILES for many in tiles)


@pytest.mark.parametrize("limits", [(0.0, math.inf), (0.0, 6.0)])
def test_limits_are_a_relu_and_nan_stays(limits: tuple[float, float]) -> None:
    weight, bias = drawn(4, 3, 3, 3) * 3, drawn(4)
    inputs = drawn(2, 3, 14, 14)
    inputs[0, 1, 6, 6] = math.nan
    outputs = F.conv2d(inputs, weight, bias, padding=1).clamp(*limits)
    found = Winograd(weight, bias).convolve(inputs, limits)
    assert found[outputs.isnan()].isnan().all() and outputs.isnan().any()
    torch.testing.assert_close(found[1], outputs[1], rtol=0, atol=1e-12)  # and goes to no other input


def test_rounding_is_of_the_size_of_onednns() -> None:
    weight, inputs = drawn(256, 256, 3, 3) / 48, drawn(2, 256, 28, 28)
    exact = F.conv2d(inputs, weight, padding=1)
    small = inputs.float().contiguous(memory_format=torch.channels_last)
    usual = (F.conv2d(small, weight.float(), padding=1) - exact).norm()
    assert (Winograd(weight.float(), None).convolve(small) - exact).norm() < 5 * usual


def test_bytes_are_repeatable_and_of_any_micro_batch() -> None:
    convolution, inputs = Winograd(drawn(128, 128, 3, 3).float(), drawn(128).float()), drawn(13, 128, 14, 14).float()
    for run in (convolution.convolve, convolution.input_gradient):
        whole = run(inputs)
        assert torch.equal(run(inputs), whole)
        torch.testing.assert_close(run(inputs[:3]), whole[:3], rtol=0, atol=1e-6 * float(whole.abs().max()))


@pytest.mark.usefixtures("fast_products")
def test_where_it_pays() -> None:
    def of(convolution: nn.Module, size: int = 28, dtype: torch.dtype = torch.float32) -> bool:
        return pays(convolution, (size, size), dtype)

    assert of(nn.Conv2d(128, 256, 3, padding=1))
    for other in (
        nn.Conv2d(64, 256, 3, padding=1),
        nn.Conv2d(256, 64, 3, padding=1),
        nn.Conv2d(256, 256, 3),
        nn.Conv2d(256, 256, 3, padding=1, stride=2),
        nn.Conv2d(256, 256, 3, padding=1, groups=2),
        nn.Conv2d(256, 256, 1),
        nn.Conv2d(256, 256, (1, 3), padding=(0, 1)),
        nn.Identity(),
    ):
        assert not of(other), other
    assert not of(nn.Conv2d(256, 256, 3, padding=1), size=7)
    assert not of(nn.Conv2d(256, 256, 3, padding=1), dtype=torch.bfloat16)


@pytest.fixture
def fast_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor of Intel's, on any."""
    monkeypatch.setattr(winograd, "products_are_fast", lambda: True)


@pytest.mark.parametrize(
    ("name", "mkl", "fast"),
    [
        ("Intel(R) Xeon(R) Processor", True, True),
        ("Intel(R) Xeon(R) Processor", False, False),
        ("AMD EPYC", True, False),
    ],
)
def test_products_are_fast_on_intels_processors(
    name: str, mkl: bool, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "processor", lambda device: name)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    assert winograd.products_are_fast.__wrapped__() == fast


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions of `Winograd` that have been called."""
    names: list[str] = []
    for name in ("convolve", "input_gradient"):
        right = getattr(Winograd, name)

        def seen(*words: object, _name: str = name, _right: object = right) -> Tensor:
            names.append(_name)
            outputs: Tensor = _right(*words)  # type: ignore[operator]
            return outputs

        monkeypatch.setattr(Winograd, name, seen)
    return names


@pytest.mark.usefixtures("fast_products")
@pytest.mark.parametrize("rectifier", [nn.ReLU, nn.ReLU6, nn.Identity])
def test_fused_network_runs_it(rectifier: type[nn.Module], called: list[str]) -> None:
    """After a first call without gradients too; small maps, and bfloat16, run in oneDNN's calls."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(128, 130, 3, padding=1), rectifier()).eval().requires_grad_(False)
    traced, _ = fold_batch_norms(copy.deepcopy(network))
    assert fuse.fuse(traced, torch.float32, largest_input=100) == 1
    images = 5 * drawn(2, 128, 15, 18, dtype=torch.float32)
    with torch.inference_mode():
        traced(images)
    found, expected = ([*outputs_and_gradient(body, images)] for body in (traced, network))
    assert called == ["convolve", "convolve", "input_gradient"]
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-3  # a ReLU may be the other way
        assert float((one - other).abs().median() / other.abs().mean()) < 1e-5
    outputs_and_gradient(traced, images[..., :13])
    low, _ = fold_batch_norms(copy.deepcopy(network))
    fuse.fuse(low, torch.bfloat16, largest_input=100)
    low(images)
    assert len(called) == 3


def outputs_and_gradient(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    outputs = network(images)
    (gradient,) = torch.autograd.grad(outputs.square().sum(), images)
    return outputs.detach(), gradient


@pytest.mark.usefixtures("fast_products")
def test_excitation_is_exact(called: list[str]) -> None:
    """One divides by it: where no input excites it is the bias, and not what rounding leaves of the tile."""
    convolution = onednn.FusedConvolution(
        nn.Conv2d(128, 128, 3, padding=1).requires_grad_(False), None, owns_gradient=True, dtype=torch.float32
    )
    inputs = torch.zeros(1, 128, 16, 16).contiguous(memory_format=torch.channels_last)
    inputs[:, :, 0, 0] = 1.0
    excitation = convolution.positive.run(inputs)
    assert float(excitation.min()) >= onednn.LEAST_EXCITATION
    convolution.positive.input_gradient(excitation, inputs.shape)
    assert not called
    convolution.run(inputs)
    assert called == ["convolve"]


def test_matrices_are_those_of_the_points() -> None:
    """Correlating is multiplying polynomials: the transforms of a unit weight and unit input give a unit output."""
    b, g, a = (torch.tensor(m, dtype=torch.float64) for m in (winograd.B_TRANSPOSED, winograd.G, winograd.A_TRANSPOSED))
    found = torch.einsum("op,pk,pi->oki", a, g, b)
    expected = torch.zeros(4, 3, 6, dtype=torch.float64)
    for output in range(4):
        for weight in range(3):
            expected[output, weight, output + weight] = 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
