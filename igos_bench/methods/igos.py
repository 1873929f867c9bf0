"""I-GOS: optimise a mask with integrated gradients as the descent direction.

Minimise over masks M (1 keeps the image, 0 shows the baseline)

    F(M) = f_c(Phi(x, M)) + l1 mean|1 - M| + l2 TV(M)

Plain gradients of f_c at the image are local and get stuck; I-GOS descends along the gradient integrated on the path
from the baseline to the masked image, with a backtracking line search on F itself.

Source: Qi, Khorram, Li, "Visualizing Deep Networks by Optimizing with Integrated Gradients", CVPR-W 2019, section 2.
Deviations, with METHODS.md: noise as the authors' code adds it (`noise=authors`); (l1, l2) at 224 and 14 are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..errors import UserError
from ..lazy import torch
from ..perturb import IMAGENET_STD, Baseline, blend, upsample, upsample_adjoint
from .draws import DrawnAhead
from .path_points import by_image
from .registry import Resolutions, register
from .regulariser import check_lambdas, lambdas_at, regulariser, regulariser_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluate import Evaluator

TV_EXPONENT = 2
NOISE_SIGMA = {  # in [0, 1] units, for red, green, blue
    "authors": (0.4 * IMAGENET_STD[0], 0.0, 0.0),
    "rgb": tuple(0.2 * std for std in IMAGENET_STD),
}


def default_lambdas() -> dict[int, tuple[float, float]]:
    """(l1, l2) by resolution: 112 and 28 are the authors', 224 and 14 ours."""
    return {224: (10.0, 200.0), 112: (3.0, 60.0), 28: (1.0, 20.0), 14: (0.5, 10.0)}


@register
@dataclass(frozen=True)
class Igos:
    """Hyper-parameters of I-GOS; see METHODS.md, "I-GOS", for each.

    Attributes:
        iterations: Steps of the mask.
        path_steps: S, points on the path from the baseline to the masked image.
        lambdas: (l1, l2) by resolution.
        first_step, shrink, smallest_step, sufficient_decrease: The backtracking line search.
        noise: `authors` (red channel alone, sigma 0.4) or `rgb` (all three, 0.2), in ImageNet-normalised units.
    """

    name: ClassVar[str] = "igos"
    version: ClassVar[int] = 1
    reference: ClassVar[str] = "Qi, Khorram, Li, CVPR-W 2019"
    resolutions: ClassVar[Resolutions] = (224, 112, 28, 14)

    iterations: int = 15
    path_steps: int = 20
    lambdas: Mapping[int, tuple[float, float]] = field(default_factory=default_lambdas)
    first_step: float = 200.0
    shrink: float = 0.2
    smallest_step: float = 1e-5
    sufficient_decrease: float = 1e-4
    noise: str = "authors"
    baseline: Baseline = field(default_factory=Baseline)

    def __post_init__(self) -> None:
        """Refuse values that cannot be run."""
        check_lambdas(self.lambdas, self.name)
        if self.noise not in NOISE_SIGMA:
            raise UserError(f"method.noise={self.noise!r} is unknown; choices: {', '.join(NOISE_SIGMA)}")
        for key in ("iterations", "path_steps"):
            if getattr(self, key) < 1:
                raise UserError(f"method.{key} must be at least 1, found {getattr(self, key)}")
        if not 0 < self.shrink < 1 or self.first_step <= 0 or self.smallest_step <= 0:
            raise UserError("method.shrink must lie between 0 and 1, first_step and smallest_step above 0")

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
        """Explain a batch; every image has its own noise, line search and annealing. See `Method.__call__`."""
        l1, l2 = lambdas_at(self.lambdas, resolution, images, self.name)
        masks = images.new_ones(len(images), 1, resolution, resolution)
        probability = evaluate.probability(blend(images, baselines, masks), targets, in_float32=True)
        history = [probability]  # f_c(Phi(x, M)) at the beginning of every iteration
        noises = DrawnAhead(generators, (self.path_steps, *images.shape[1:]), rounds=self.iterations)
        for iteration in range(self.iterations):
            slope = self.path_gradient(evaluate, images, targets, baselines, masks, noises)
            direction = slope + regulariser_gradient(masks, l1, l2, TV_EXPONENT)
            masks, probability = self.line_search(
                evaluate, images, targets, baselines, masks, probability, direction, l1, l2
            )
            l1 = self.annealed(l1, iteration, history)
            history.append(probability)
        return 1 - masks

    def path_gradient(
        self,
        evaluate: Evaluator,
        images: Tensor,
        targets: Tensor,
        baselines: Tensor,
        masks: Tensor,
        noises: Iterator[Tensor],
    ) -> Tensor:
        """Gradient to the masks (B,1,r,r) of (1/S) sum_s f_c(baseline + (s/S) up(M) (x - baseline) + n_s).

        In closed form from the gradient to the input: only the sum over the path goes through the upsampling's adjoint.
        Micro-batches run over the points of all images, one after the other. `noises` gives the standard normal draws
        (S,3,H,W) of the next image.
        """
        steps = self.path_steps
        difference = images - baselines
        masked = difference * upsample(masks, images.shape[-1])
        sigma = images.new_tensor(NOISE_SIGMA[self.noise]).view(3, 1, 1)
        total = torch.zeros_like(images)
        share = torch.arange(1, steps + 1, dtype=images.dtype, device=images.device) / steps
        noise_of: dict[int, Tensor] = {}  # kept while an image has points to come, or to be made again in halves

        def points(rows: slice) -> Tensor:
            for b in [b for b in noise_of if (b + 1) * steps <= rows.start]:
                del noise_of[b]
            made = []
            for b, part, _ in by_image(rows, steps):
                if b not in noise_of:
                    noise_of[b] = next(noises)
                clean = torch.addcmul(baselines[b], share[part].view(-1, 1, 1, 1), masked[b])
                made.append(clean.addcmul_(noise_of[b][part].to(images), sigma))
            return torch.cat(made) if len(made) > 1 else made[0]

        for rows, _, slopes in evaluate.gradients(points, targets.repeat_interleave(steps)):
            for b, part, here in by_image(rows, steps):
                total[b] += torch.tensordot(share[part], slopes[here], dims=1)
        return upsample_adjoint((total * difference).sum(1, keepdim=True) / steps, masks.shape[-1])

    def line_search(
        self,
        evaluate: Evaluator,
        images: Tensor,
        targets: Tensor,
        baselines: Tensor,
        masks: Tensor,
        probability: Tensor,
        direction: Tensor,
        l1: Tensor,
        l2: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Backtrack along -direction, projected on [0, 1], image by image; images that are done leave the batch.

        f_c is compared in float32 whatever the precision: bf16's rounding is larger than what most steps gain.

        Returns:
            The new masks and f_c there (B,). Where no step decreases F enough, the first one below `smallest_step`.
        """
        objective = probability + regulariser(masks, l1, l2, TV_EXPONENT)
        square = direction.square().sum((1, 2, 3))  # of the unprojected direction
        found_masks, found_probability = masks.clone(), probability.clone()
        searching = torch.arange(len(images), device=images.device)
        step = self.first_step
        while len(searching):
            trial = (masks[searching] - step * direction[searching]).clamp(0, 1)
            value = evaluate.probability(
                blend(images[searching], baselines[searching], trial), targets[searching], in_float32=True
            )
            found_masks[searching], found_probability[searching] = trial, value
            if step < self.smallest_step:
                evaluate.notes["steps without sufficient decrease"] += len(searching)
                break
            bound = objective[searching] - self.sufficient_decrease * step * square[searching]
            searching = searching[value + regulariser(trial, l1[searching], l2[searching], TV_EXPONENT) > bound]
            step *= self.shrink
        return found_masks, found_probability

    def annealed(self, l1: Tensor, iteration: int, history: list[Tensor]) -> Tensor:
        """l1 (B,) after `iteration`: smaller where f_c hardly moved (METHODS.md, step 5, with its early comparison)."""
        for divisor, threshold, factor in ((2, 0.001, 10), (1.25, 0.01, 5)):
            turn = int(self.iterations / divisor)
            if iteration == turn and turn >= 1:
                stuck = (history[0] - history[turn - 1]).abs() <= threshold
                l1 = torch.where(stuck, l1 / factor, l1)
        return l1
