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
from .path_points import by_image
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
        """Explain a batch; micro-batches run over the points of all paths. See `Method.__call__`."""
        difference = images - baselines
        share = torch.arange(1, self.steps + 1, dtype=images.dtype, device=images.device) / self.steps
        total = torch.zeros_like(images)

        def points(rows: slice) -> Tensor:
            made = [
                torch.addcmul(baselines[b], share[part].view(-1, 1, 1, 1), difference[b])
                for b, part, _ in by_image(rows, self.steps)
            ]
            return torch.cat(made) if len(made) > 1 else made[0]

        for rows, _, slopes in evaluate.gradients(points, targets.repeat_interleave(self.steps)):
            for b, _, here in by_image(rows, self.steps):
                total[b] += slopes[here].sum(0)
        return (difference * total / self.steps).sum(1, keepdim=True)
