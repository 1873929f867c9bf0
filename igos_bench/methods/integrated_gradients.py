"""Integrated Gradients: the mean gradient on the line from the baseline to the image, times their difference.

    S = sum over colours of (x - x~) * (1/n) sum_{s=1..n} grad f_c(x~ + (s/n) (x - x~))

The elements add up to f_c(x) - f_c(x~), up to the error of the sum (completeness). The map is signed.

Source: Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, equations 1 and 3.
Deviation, with METHODS.md: from the blurred image instead of black.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..errors import UserError
from ..lazy import torch
from ..perturb import Baseline
from .registry import Resolutions, register

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluate import Evaluator


@register
@dataclass(frozen=True)
class IntegratedGradients:
    """Hyper-parameters of Integrated Gradients.

    Attributes:
        steps: Points of the right Riemann sum.
        baseline: Where the path begins.
    """

    name: ClassVar[str] = "integrated_gradients"
    version: ClassVar[int] = 1
    reference: ClassVar[str] = "Sundararajan, Taly, Yan, ICML 2017"
    resolutions: ClassVar[Resolutions] = (224,)

    steps: int = 20
    baseline: Baseline = field(default_factory=Baseline)

    def __post_init__(self) -> None:
        """Refuse a path without points."""
        if self.steps < 1:
            raise UserError(f"method.steps must be at least 1, found {self.steps}")

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
        return torch.stack([self._explain(evaluate, *one) for one in zip(images, targets, baselines, strict=True)])

    def _explain(self, evaluate: Evaluator, image: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        """The map (1,H,W) of one image (3,H,W)."""
        difference = image - baseline
        share = (torch.arange(1, self.steps + 1, dtype=image.dtype, device=image.device) / self.steps).view(-1, 1, 1, 1)
        total = torch.zeros_like(image)
        path = evaluate.gradients(lambda rows: baseline + share[rows] * difference, target.expand(self.steps))
        for _, _, slopes in path:
            total += slopes.sum(0)
        return (difference * total / self.steps).sum(0, keepdim=True)
