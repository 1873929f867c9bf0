"""The rules of Excitation Backprop that torchray lacks, for EfficientNet-Lite0; VGG needs none.

torchray has rules for convolution, linear, average pooling, batch norm and, if the network is rewritten to use it, a
sum that is not clamped; it takes for granted that what enters a convolution is not negative. Lite0 also has ReLU6, and
its blocks end without an activation, so that sums and the convolutions behind them see negative inputs. These are put
into the network itself, as torchray's own `update_resnet` does; the formulas are those of METHODS.md.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers import BatchNormAct2d  # type: ignore[attr-defined]  # no __all__
from timm.models._efficientnet_blocks import InvertedResidual
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn


class _Convolution(torch.autograd.Function):
    """p_in = a W+^T(p / (W+ a)), the negative a counting as 0."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return torch.conv2d(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        inputs, weight = ctx.saved_tensors
        with torch.enable_grad():
            a = inputs.detach().clamp(min=0).requires_grad_()
            excitation = torch.conv2d(a, weight.clamp(min=0))
            (share,) = torch.autograd.grad(excitation, a, gradients[0] / (excitation + 1e-20))
        return a.detach() * share, None, None


class _Sum(torch.autograd.Function):
    """p is split in proportion to the inputs, each clamped at 0."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        return left + right

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        left, right = (tensor.clamp(min=0) for tensor in ctx.saved_tensors)
        share = gradients[0] / (left + right + 1e-20)
        return left * share, right * share


class _Clip(torch.autograd.Function):
    """ReLU6: p passes wherever the activation is positive."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return inputs.clamp(0, 6)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        return torch.where(inputs > 0, gradients[0], 0)


class _ReLU6(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = _Clip.apply(inputs)
        return outputs


class _Pointwise(nn.Module):
    """A 1 x 1 convolution whose inputs may be negative."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        if convolution.kernel_size != (1, 1) or convolution.groups != 1 or convolution.stride != (1, 1):
            raise NotImplementedError(f"torchray needs a rule of its own for {convolution}")
        self.convolution = convolution

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = _Convolution.apply(inputs, self.convolution.weight, self.convolution.bias)
        return outputs


def _residual(block: InvertedResidual, inputs: Tensor) -> Tensor:
    """The forward pass of a block with a residual sum, the sum as a function that has a rule."""
    outputs = InvertedResidual.forward(block, inputs)  # `has_skip` is off: without its own sum
    return _Sum.apply(outputs, inputs)  # type: ignore[no-any-return]


def add_rules(network: nn.Module) -> nn.Module:
    """Put the rules into an EfficientNet of timm, in place; another network is returned as it is."""
    if not any(isinstance(module, InvertedResidual) for module in network.modules()):
        return network
    for module in list(network.modules()):
        if isinstance(module, BatchNormAct2d) and isinstance(module.act, nn.ReLU6):
            module.act = _ReLU6()
        elif isinstance(module, InvertedResidual):
            module.conv_pw = _Pointwise(module.conv_pw)
            if module.has_skip:
                module.has_skip = False
                module.forward = partial(_residual, module)  # type: ignore[method-assign]
        elif isinstance(module, EfficientNet):
            module.conv_head = _Pointwise(module.conv_head)
            # timm's takes the mean, for which torchray has no rule.
            module.global_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return network
