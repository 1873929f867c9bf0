"""RISE: the average of random masks, each weighted by the class's probability on the image that shows through it.

    S = sum_i f_c(x m_i + mean (1 - m_i)) m_i / (N p)

The masks m_i are coarse random grids, upsampled and cropped at a random shift. Only the small grids and the shifts are
kept; masks are made from them a few at a time, so memory does not grow with N.

Source: Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018,
section 3. As METHODS.md has it: one set of masks a run; where the paper shows black it is ImageNet's mean colour, which
is 0 in the authors' normalised input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..errors import UserError
from ..lazy import F, torch
from ..perturb import Baseline, blend
from .registry import Resolutions, register

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluate import Evaluator

MASKS_AT_ONCE = 64  # in the weighted sum; fixed, because the order of a sum shows in its last digits


@register
@dataclass(frozen=True)
class Rise:
    """Hyper-parameters of RISE; see METHODS.md, "RISE", for each.

    Attributes:
        masks: N, how many.
        grid: Cells a side of the small grid.
        probability: p, of a cell being on.
        baseline: What shows where a mask is 0.
    """

    name: ClassVar[str] = "rise"
    version: ClassVar[int] = 1
    reference: ClassVar[str] = "Petsiuk, Das, Saenko, BMVC 2018"
    resolutions: ClassVar[Resolutions] = (224,)

    masks: int = 4000
    grid: int = 7
    probability: float = 0.5
    baseline: Baseline = field(default_factory=lambda: Baseline(kind="mean"))

    def __post_init__(self) -> None:
        """Refuse values that make no masks."""
        if self.masks < 1 or self.grid < 2:
            raise UserError(f"method.masks must be at least 1 and grid 2, found masks={self.masks} grid={self.grid}")
        if not 0 < self.probability <= 1:
            raise UserError(f"method.probability must lie above 0 and not above 1, found {self.probability}")

    def __call__(
        self,
        evaluate: Evaluator,
        images: Tensor,
        targets: Tensor,
        *,
        baselines: Tensor,
        resolution: int,
        generators: list[torch.Generator],
        run_generator: torch.Generator,
    ) -> Tensor:
        """Explain a batch, image by image, so that each gets the same micro-batches alone. See `Method.__call__`."""
        masks = RandomMasks.draw(self.masks, self.grid, self.probability, images, run_generator)
        return torch.stack(
            [self._explain(evaluate, *one, masks=masks) for one in zip(images, targets, baselines, strict=True)]
        )

    def _explain(
        self, evaluate: Evaluator, image: Tensor, target: Tensor, baseline: Tensor, *, masks: RandomMasks
    ) -> Tensor:
        """The map (1,H,W) of one image (3,H,W)."""
        masked = partial(_masked, image, baseline, masks)
        probabilities = evaluate.probability(masked, target.expand(self.masks))
        total = torch.zeros_like(image[:1])
        for start in range(0, self.masks, MASKS_AT_ONCE):
            rows = slice(start, min(start + MASKS_AT_ONCE, self.masks))
            total += torch.tensordot(probabilities[rows], masks[rows], dims=1)
        return total / (self.masks * self.probability)


def _masked(image: Tensor, baseline: Tensor, masks: RandomMasks, rows: slice) -> Tensor:
    return blend(image, baseline, masks[rows])


@dataclass(frozen=True)
class RandomMasks:
    """N random masks, made when they are asked for: `masks[rows]` is (n,1,size,size) in [0, 1].

    Attributes:
        grids: (N,g,g), 0 or 1.
        shifts: (N,2), the crop's row and column.
        size: Pixels a side.
        weights: (cell * (g + 1), g), the upsampling of one side: uncropped, a mask is `weights @ grid @ weights^T`.
    """

    grids: Tensor
    shifts: Tensor
    size: int
    weights: Tensor

    @classmethod
    def draw(cls, count: int, grid: int, probability: float, images: Tensor, generator: torch.Generator) -> RandomMasks:
        """Draw masks for images (B,3,S,S), on their device; a cell of the grid covers ceil(S / grid) pixels."""
        size = images.shape[-1]
        cell = math.ceil(size / grid)
        grids = torch.rand(count, grid, grid, generator=generator) < probability
        shifts = torch.randint(cell, (count, 2), generator=generator)
        weights = upsampling_weights(grid, cell * (grid + 1))
        return cls(grids.to(images), shifts.to(images.device), size, weights.to(images))

    def __getitem__(self, rows: slice) -> Tensor:
        """The masks of these rows, (n,1,size,size)."""
        window = torch.arange(self.size, device=self.shifts.device)
        sides = self.weights[self.shifts[rows, :, None] + window]  # (n,2,size,g): the crop, before the product
        return (sides[:, 0] @ self.grids[rows] @ sides[:, 1].mT)[:, None]


def upsampling_weights(grid: int, size: int) -> Tensor:
    """Half-pixel bilinear interpolation of `grid` cells to `size` pixels, borders reflect-101: (size,grid), float64."""
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) * grid / size - 0.5
    left = centres.floor()
    share = (centres - left)[:, None]

    def chosen(cells: Tensor) -> Tensor:
        last = grid - 1
        return F.one_hot((last - (last - cells.long().abs()).abs()), grid).double()

    return (1 - share) * chosen(left) + share * chosen(left + 1)
