"""Mask: learn by plain gradient descent the smallest, smoothest deletion that destroys the class.

Minimise over masks M (1 keeps the image, 0 shows the baseline)

    F(M) = f_c(Phi(x, M) + noise) + l1 mean|1 - M| + l2 TV(M),    TV with exponent 3

with Adam, projected on [0, 1] after every step; the last iterate is the result. I-GOS answers to its weakness, that the
gradient at the image itself is local.

Source: Fong, Vedaldi, "Interpretable Explanations of Black Boxes by Meaningful Perturbation", ICCV 2017, section 4; the
constants are those of its PyTorch port, which the seed paper's 500 iterations point to.
Deviations, with METHODS.md: the baseline is the benchmark's blur (the port optimises against an 11-pixel median blur),
the mask is not jittered, and (l1, l2), the port's at 28, serve every resolution until they are tuned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..errors import UserError
from ..lazy import torch
from ..perturb import IMAGENET_STD, Baseline, blend, upsample_adjoint
from .draws import DrawnAhead
from .registry import Resolutions, register
from .regulariser import check_lambdas, lambdas_at, regulariser_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluate import Evaluator

TV_EXPONENT = 3
NOISE_SIGMA = {  # in [0, 1] units, for red, green, blue
    "authors": (0.2 * IMAGENET_STD[0], 0.0, 0.0),
    "rgb": tuple(0.2 * std for std in IMAGENET_STD),
}


def default_lambdas() -> dict[int, tuple[float, float]]:
    """(l1, l2) by resolution: the port's at 28; the same elsewhere is ours."""
    return dict.fromkeys((224, 112, 28, 14), (0.01, 0.2))


@register
@dataclass(frozen=True)
class Mask:
    """Hyper-parameters of Mask; see METHODS.md, "Mask", for each.

    Attributes:
        iterations: Steps of Adam.
        learning_rate: Of Adam; its other settings are Adam's defaults.
        lambdas: (l1, l2) by resolution.
        noise: `authors` (red channel alone) or `rgb` (all three), sigma 0.2 in ImageNet-normalised units.
    """

    name: ClassVar[str] = "mask"
    version: ClassVar[int] = 1
    reference: ClassVar[str] = "Fong, Vedaldi, ICCV 2017"
    resolutions: ClassVar[Resolutions] = (224, 112, 28, 14)

    iterations: int = 500
    learning_rate: float = 0.1
    lambdas: Mapping[int, tuple[float, float]] = field(default_factory=default_lambdas)
    noise: str = "authors"
    baseline: Baseline = field(default_factory=Baseline)

    def __post_init__(self) -> None:
        """Refuse values that cannot be run."""
        check_lambdas(self.lambdas, self.name)
        if self.noise not in NOISE_SIGMA:
            raise UserError(f"method.noise={self.noise!r} is unknown; choices: {', '.join(NOISE_SIGMA)}")
        if self.iterations < 1:
            raise UserError(f"method.iterations must be at least 1, found {self.iterations}")
        if self.learning_rate <= 0:
            raise UserError(f"method.learning_rate must be above 0, found {self.learning_rate}")

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
        """Explain a batch; Adam works element by element, so no image feels another. See `Method.__call__`."""
        l1, l2 = lambdas_at(self.lambdas, resolution, images, self.name)
        sigma = images.new_tensor(NOISE_SIGMA[self.noise]).view(3, 1, 1)
        difference = images - baselines
        masks = images.new_ones(len(images), 1, resolution, resolution)
        adam = torch.optim.Adam([masks], lr=self.learning_rate)
        noises = DrawnAhead(generators, (1, *images.shape[1:]), rounds=self.iterations)
        for _ in range(self.iterations):
            noise = torch.cat([next(noises) for _ in generators])
            noisy = blend(images, baselines, masks).addcmul_(noise.to(images), sigma)
            _, slopes = evaluate.gradient(noisy, targets)
            slope = upsample_adjoint((slopes * difference).sum(1, keepdim=True), resolution)
            masks.grad = slope + regulariser_gradient(masks, l1, l2, TV_EXPONENT)
            adam.step()
            masks.clamp_(0, 1)
        return 1 - masks
