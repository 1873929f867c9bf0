"""The regularisers against autograd and the literal implementation."""

from __future__ import annotations

import literal
import pytest
import torch

from igos_bench.methods.regulariser import regulariser, regulariser_gradient

R = 8


@pytest.mark.parametrize("exponent", [2, 3])
def test_regulariser_gradient_is_the_gradient(exponent: int) -> None:
    masks = torch.rand(2, 1, R, R, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    l1, l2 = torch.tensor([0.3, 2.0]).double(), torch.tensor([4.0, 0.5]).double()
    values = regulariser(masks, l1, l2, exponent)
    for b in range(2):
        assert values[b].item() == pytest.approx(
            literal.regularisers(masks[b].detach(), float(l1[b]), float(l2[b]), exponent).item(), abs=1e-12
        )
    (expected,) = torch.autograd.grad(values.sum(), masks)
    assert (regulariser_gradient(masks.detach(), l1, l2, exponent) - expected).abs().max() < 1e-12
    ones = torch.ones(1, 1, R, R)
    assert regulariser_gradient(ones, torch.tensor([1.0]), torch.tensor([0.0]), exponent).abs().max() == 0
