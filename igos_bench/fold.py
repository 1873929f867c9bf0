"""Batch norm folded into the convolution before it: the same function with fewer passes over memory.

At inference a batch norm is y = gamma (x - mean) / sqrt(variance + eps) + beta, an affine map of each channel. With
W' = W gamma / sqrt(variance + eps) and b' = (b - mean) gamma / sqrt(variance + eps) + beta the convolution does both.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d, is_notrace_module  # type: ignore[attr-defined]  # no __all__
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


class _Tracer(fx.Tracer):
    """Stops at convolutions and batch norms, and at the modules whose forward timm says cannot be traced."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d) or is_notrace_module(type(module)):
            return True
        return super().is_leaf_module(module, qualified_name)


class _Clip(torch.autograd.Function):
    """ReLU6 in place that keeps its output; `torch`'s own clones its input for the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        outputs = inputs.clamp_(0, 6)
        ctx.mark_dirty(outputs)
        ctx.save_for_backward(outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (outputs,) = ctx.saved_tensors  # strictly inside (0, 6) exactly where the input was
        return cast(Tensor, torch.ops.aten.hardtanh_backward(gradients[0], outputs, 0, 6))


class _ReLU6(nn.Module):
    """Equal to `nn.ReLU6` to the bit, forward and backward; for an input that nobody else reads."""

    def forward(self, inputs: Tensor) -> Tensor:
        return cast(Tensor, _Clip.apply(inputs))


def fold_batch_norms(network: nn.Module) -> tuple[fx.GraphModule, int]:
    """Folds every batch norm that is the only reader of a convolution's output; any other stays as it is.

    Args:
        network: in eval mode; it is not changed and shares nothing with the result.

    Returns:
        A traced copy, and how many batch norms were folded in it. Traced for any batch size, but for the branches that
        `forward` takes in eval mode.

    Raises:
        Exception: whatever `torch.fx` raises for a network that cannot be traced.
    """
    network = copy.deepcopy(network)
    traced = fx.GraphModule(network, _Tracer().trace(network))
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")

    folded = 0
    for node in list(traced.graph.nodes):
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) > 1:
            continue
        if calls[node.target] > 1 or calls[source.target] > 1:  # shared by two places of the network
            continue
        convolution, batch_norm = modules[str(source.target)], modules[str(node.target)]
        if isinstance(convolution, nn.Conv2d) and isinstance(batch_norm, nn.BatchNorm2d) and _is_foldable(batch_norm):
            _fold(convolution, batch_norm)
            traced.set_submodule(str(node.target), _what_follows(batch_norm))
            folded += 1
    traced.recompile()
    return traced, folded


def _is_foldable(batch_norm: nn.BatchNorm2d) -> bool:
    """Exact types: a subclass may do anything in its forward. Without running statistics it is not an affine map."""
    return type(batch_norm) in (nn.BatchNorm2d, BatchNormAct2d) and batch_norm.running_mean is not None


def _what_follows(batch_norm: nn.BatchNorm2d) -> nn.Module:
    """The batch norm of timm carries dropout, which eval mode makes the identity, and the activation."""
    activation = batch_norm.act if isinstance(batch_norm, BatchNormAct2d) else nn.Identity()
    return _ReLU6() if type(activation) is nn.ReLU6 else activation


def _fold(convolution: nn.Conv2d, batch_norm: nn.BatchNorm2d) -> None:
    """In float64, so that the one rounding is that of the result."""

    def double(tensor: Tensor | None) -> Any:  # the stubs of fuse_conv_bn_weights are narrower than what it takes
        return None if tensor is None else tensor.detach().double()

    weight, bias = fuse_conv_bn_weights(
        double(convolution.weight),
        double(convolution.bias),
        double(batch_norm.running_mean),
        double(batch_norm.running_var),
        batch_norm.eps,
        double(batch_norm.weight),
        double(batch_norm.bias),
    )
    dtype = convolution.weight.dtype
    convolution.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
    convolution.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
