"""The two regularisers of the mask methods: l1 mean|1 - M| + l2 TV(M), with its gradient in closed form.

TV(M) is the mean of |vertical difference|^exponent plus that of |horizontal difference|^exponent, each over the r(r-1)
neighbours of one direction (METHODS.md): exponent 2 for I-GOS, 3 for Mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def regulariser(masks: Tensor, l1: Tensor, l2: Tensor, exponent: int) -> Tensor:
    """l1 mean|1 - M| + l2 TV(M), (B,); masks (B,1,r,r), l1 and l2 (B,), exponent at least 2."""
    variation = sum(masks.diff(dim=dim).abs().pow(exponent).mean((1, 2, 3)) for dim in (2, 3))
    return l1 * (1 - masks).abs().mean((1, 2, 3)) + l2 * variation


def regulariser_gradient(masks: Tensor, l1: Tensor, l2: Tensor, exponent: int) -> Tensor:
    """Gradient of `regulariser` to the masks (B,1,r,r), in closed form; 0 for |1 - M| where M = 1."""
    vertical, horizontal = (
        difference * difference.abs().pow(exponent - 2) for difference in (masks.diff(dim=2), masks.diff(dim=3))
    )
    variation = masks.new_zeros(masks.shape)
    variation[:, :, 1:] += vertical
    variation[:, :, :-1] -= vertical
    variation[:, :, :, 1:] += horizontal
    variation[:, :, :, :-1] -= horizontal
    r = masks.shape[-1]
    sparsity = -(1 - masks).sign() / (r * r)
    return l1.view(-1, 1, 1, 1) * sparsity + l2.view(-1, 1, 1, 1) * variation * (exponent / (r * (r - 1)))


def lambdas_at(
    lambdas: Mapping[int, tuple[float, float]], resolution: int, images: Tensor, method: str
) -> tuple[Tensor, Tensor]:
    """(l1, l2) of a resolution, each (B,), on the images' device; raises UserError where there are none."""
    if resolution not in lambdas:
        raise UserError(
            f"{method} has no (l1, l2) for resolution {resolution}, only for {sorted(lambdas)}: "
            f"say 'method.lambdas={{{resolution}:[l1,l2]}}'"
        )
    l1, l2 = lambdas[resolution]
    return images.new_full((len(images),), l1), images.new_full((len(images),), l2)


def check_lambdas(lambdas: object, method: str) -> None:
    """Raise UserError where `lambdas` is no mapping from resolutions to two numbers."""
    pairs = list(lambdas.items()) if isinstance(lambdas, Mapping) else [(None, lambdas)]
    for resolution, pair in pairs:
        numbers = list(pair) if isinstance(pair, (list, tuple)) else []
        if [type(resolution), len(numbers)] != [int, 2] or not all(isinstance(n, (int, float)) for n in numbers):
            raise UserError(
                f"method.lambdas={lambdas}: {method} needs (l1, l2) by resolution, such as "
                f"'method.lambdas={{28:[1,20]}}'"
            )
