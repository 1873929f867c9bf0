"""Grad-CAM: a layer's activations, weighted by how much each channel raises the target's logit.

    S = ReLU( sum_k w_k A_k ),    w_k = spatial mean of d logit_c / d A_k

Cheap, one pass; as coarse as the layer, and blind to what happened before it.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
equations 1 and 2. The map is not upsampled here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..perturb import Baseline
from .registry import Resolutions, layer_at, register

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..evaluate import Evaluator


@register
@dataclass(frozen=True)
class GradCam:
    """Grad-CAM has no hyper-parameters: the layers are the model's, in `evaluate.layers`."""

    name: ClassVar[str] = "grad_cam"
    version: ClassVar[int] = 1
    reference: ClassVar[str] = "Selvaraju et al., ICCV 2017"
    resolutions: ClassVar[Resolutions] = "from the model"
    baseline: ClassVar[Baseline] = Baseline()  # not looked at

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
        """Explain a batch. See `Method.__call__`."""
        layer = layer_at(evaluate, resolution, self.name)
        activations, gradients = evaluate.activations(images, targets, layer)
        weights = gradients.mean((2, 3), keepdim=True)  # (B,K,1,1)
        return (weights * activations).sum(1, keepdim=True).relu()
