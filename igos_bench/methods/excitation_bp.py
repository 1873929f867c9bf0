"""Excitation Backprop: pass a probability down from the target, each neuron sharing its own among those that excite it.

A winner is drawn at the target's logit and handed down, layer by layer, to an input in proportion to its excitation:

    p_in = a * W+^T( p_out / (W+ a) ),    W+ = max(W, 0),  a >= 0,  no bias,  0 where W+ a = 0

for convolution, linear and average pooling; negative a count as 0. ReLU, ReLU6 and dropout let p pass where the
activation is positive, max pooling hands it to the argmax, batch norm lets it pass, and a residual sum splits it in
proportion to its inputs, each clamped at 0. The map is the sum of p over a layer's channels, where it is positive.

Source: Zhang, Lin, Brandt, Shen, Sclaroff, "Top-down Neural Attention by Excitation Backprop", ECCV 2016, section 3.2.
Deviation, with METHODS.md: the rules for batch norm and residual sums, which the paper does not have.

Where it holds. The theory asks for activations that are never negative and layers that are linear in between: VGG and
other chains of convolution and ReLU, exactly. Batch norm and residual sums are our reading: a batch norm of negative
gamma turns excitation into inhibition, which the rule ignores, and a sum before the ReLU has negative inputs, which it
drops; p is then lost on the way and the map no longer sums to 1, as also where W+ a = 0. There is no rule for gates and
products (squeeze-and-excitation), activations other than ReLU and ReLU6 (SiLU, GELU, sigmoid), layer norm or attention:
a network with one of those between the layer and the logits is refused with the name of the module, never passed over.

The rules are in `excitation_rules.py`. W is that of the network as it was trained: folding a negative gamma into a
convolution turns its W+ around, so that the fast network keeps the signs, which is enough, as a positive factor of an
output's weights cancels in the rule.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import UserError
from ..lazy import torch
from ..perturb import Baseline
from .registry import Resolutions, layer_at, register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..evaluate import Evaluator


@register
@dataclass(frozen=True)
class ExcitationBp:
    """Excitation Backprop has no hyper-parameters: the layers are the model's, in `evaluate.layers`."""

    name: ClassVar[str] = "excitation_bp"
    version: ClassVar[int] = 1
    reference: ClassVar[str] = "Zhang et al., ECCV 2016"
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
        """Explain a batch; raises UserError for a network without rules. See `Method.__call__`."""
        layer = layer_at(evaluate, resolution, self.name)
        network, module = evaluate.tapped(layer)

        def excite(part: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
            try:
                p = winning_probability(network, module, part, classes, evaluate.autocast(part))
            except UserError:  # the network as it was trained has names for what is in the way
                p = winning_probability(evaluate.network, layer, part, classes, evaluate.autocast(part))
            return (p.sum(1, keepdim=True, dtype=part.dtype).clamp(min=0),)

        (maps,) = evaluate.passes(excite, images, targets)
        return maps


def winning_probability(
    network: nn.Module,
    layer: nn.Module,
    images: Tensor,
    targets: Tensor,
    precision: AbstractContextManager[object] | None = None,
) -> Tensor:
    """The marginal winning probability (N,C,h,w) at the output of `layer`, from a one-hot at the targets' logits.

    Args:
        network: In eval mode, its parameters frozen.
        layer: A module of it that runs once.
        images: (N,3,H,W).
        targets: (N,).
        precision: What the forward pass runs under, if anything.

    Raises:
        UserError: The network has something between the layer and the logits for which there is no rule.
    """
    from .excitation_rules import rules_in_force  # its classes are torch's own: it cannot do without

    with torch.enable_grad(), precision or nullcontext(), rules_in_force(network, layer) as rules:
        logits = network(images)
    winners = torch.zeros_like(logits).scatter_(1, targets[:, None], 1)
    # Outside the mode: the rules call torch functions themselves.
    (p,) = torch.autograd.grad(logits, rules.leaf, winners)
    return p
