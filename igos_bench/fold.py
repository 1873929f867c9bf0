"""The same network with fewer passes over memory: batch norm folded into convolutions, padding into their kernels.

At inference a batch norm is y = gamma (x - mean) / sqrt(variance + eps) + beta, an affine map of each channel. With
W' = W gamma / sqrt(variance + eps) and b' = (b - mean) gamma / sqrt(variance + eps) + beta the convolution does both.

TensorFlow's "SAME" padding adds one more row after the image than before it, which torch cannot say: timm copies the
image into a larger one. A row of zeros before the kernel and equal padding on both sides give the same sums.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection
from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d, Conv2dSame, is_notrace_module  # type: ignore[attr-defined]  # no __all__
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import handle_torch_function, has_torch_function_unary


class _Tracer(fx.Tracer):
    """Stops at convolutions and batch norms, and at the modules whose forward timm says cannot be traced."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d) or is_notrace_module(type(module)):
            return True
        return super().is_leaf_module(module, qualified_name)


class _Clip(torch.autograd.Function):
    """ReLU6 in place that keeps its output; `torch`'s own clones its input for the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, owns_gradient: bool) -> Tensor:
        outputs = inputs.clamp_(0, 6)
        ctx.mark_dirty(outputs)
        ctx.save_for_backward(outputs)
        ctx.owns_gradient = owns_gradient
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (outputs,) = ctx.saved_tensors  # strictly inside (0, 6) exactly where the input was
        gradient = gradients[0]
        result = gradient if ctx.owns_gradient else torch.empty_like(gradient)
        torch.ops.aten.hardtanh_backward.grad_input(gradient, outputs, 0, 6, grad_input=result)
        return result, None


def relu6_in_place(inputs: Tensor, owns_gradient: bool) -> Tensor:
    """ReLU6 in place, see `ReLU6`; a function that modes of torch can see."""
    if has_torch_function_unary(inputs):
        found: Tensor = handle_torch_function(relu6_in_place, (inputs,), inputs, owns_gradient)
        return found
    if torch.is_grad_enabled() and inputs.requires_grad:
        return cast(Tensor, _Clip.apply(inputs, owns_gradient))
    return inputs.clamp_(0, 6)


class ReLU6(nn.Module):
    """Equal to `nn.ReLU6` to the bit, forward and backward; for an input that nobody else reads.

    Args:
        owns_gradient: the one reader of its output is a convolution, whose backward pass makes a gradient that nobody
            else reads: it may be overwritten. A sum would hand the same gradient to another branch too.
    """

    def __init__(self, *, owns_gradient: bool) -> None:
        super().__init__()
        self.owns_gradient = owns_gradient

    def forward(self, inputs: Tensor) -> Tensor:
        """Overwrites its inputs."""
        return relu6_in_place(inputs, self.owns_gradient)


class SameConvolution(nn.Module):
    """Equal to timm's `Conv2dSame` without dilation, padding the kernel instead of the image."""

    def __init__(self, convolution: Conv2dSame) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.stride, self.groups = convolution.stride, convolution.groups
        self.register_buffer("gamma_signs", getattr(convolution, "gamma_signs", None), persistent=False)

    def symmetric(self, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """The kernel, padded, and the equal padding on both sides that go with inputs of that height and width."""
        rows, columns = (
            max((-(-length // stride) - 1) * stride + kernel - length, 0)
            for length, stride, kernel in zip(size, self.stride, self.weight.shape[-2:], strict=True)
        )
        return F.pad(self.weight, (columns % 2, 0, rows % 2, 0)), ((rows + 1) // 2, (columns + 1) // 2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (N,C,H,W) -> outputs (N,K,ceil(H / stride),ceil(W / stride))."""
        weight, padding = self.symmetric((inputs.shape[-2], inputs.shape[-1]))
        return F.conv2d(inputs, weight, self.bias, self.stride, padding, groups=self.groups)


def fold_batch_norms(network: nn.Module, layers: Collection[str] = ()) -> tuple[fx.GraphModule, int]:
    """Folds every batch norm that is the only reader of a convolution's output; any other stays as it is.

    Args:
        network: in eval mode; it is not changed and shares nothing with the result.
        layers: names of modules that run once; the node that gives out the output of one has its name in
            `meta["layers"]`, unless folding changes that output.

    Returns:
        A traced copy, and how many batch norms were folded in it. Traced for any batch size, but for the branches that
        `forward` takes in eval mode.

    Raises:
        Exception: whatever `torch.fx` raises for a network that cannot be traced.
    """
    network = copy.deepcopy(network)
    traced = fx.GraphModule(network, _Tracer().trace(network))
    _mark(traced, layers)
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
            source.meta["layers"] = set()
            readers = [modules.get(str(user.target)) if user.op == "call_module" else None for user in node.users]
            owns_gradient = len(readers) == 1 and isinstance(readers[0], nn.Conv2d)
            traced.set_submodule(str(node.target), _what_follows(batch_norm, owns_gradient=owns_gradient))
            folded += 1
    for name, module in modules.items():
        if type(module) is Conv2dSame and module.dilation == (1, 1):
            traced.set_submodule(name, SameConvolution(module))
    traced.recompile()
    return traced, folded


def _mark(traced: fx.GraphModule, layers: Collection[str]) -> None:
    """The last node of a module is its output. timm's batch norm, which is not traced, ends in its own activation."""
    modules = dict(traced.named_modules())
    for layer in layers:
        owner = layer.removesuffix(".act")
        name = owner if isinstance(modules.get(owner), BatchNormAct2d) else layer
        inside = [node for node in traced.graph.nodes if name in (node.meta.get("nn_module_stack") or {})]
        if inside:
            inside[-1].meta.setdefault("layers", set()).add(layer)


def _is_foldable(batch_norm: nn.BatchNorm2d) -> bool:
    """Exact types: a subclass may do anything in its forward. Without running statistics it is not an affine map.

    A gamma of 0 would lose the weights, which Excitation BP asks for.
    """
    if type(batch_norm) not in (nn.BatchNorm2d, BatchNormAct2d) or batch_norm.running_mean is None:
        return False
    return not batch_norm.affine or bool(batch_norm.weight.all())


def _what_follows(batch_norm: nn.BatchNorm2d, *, owns_gradient: bool) -> nn.Module:
    """The batch norm of timm carries dropout, which eval mode makes the identity, and the activation."""
    activation = batch_norm.act if isinstance(batch_norm, BatchNormAct2d) else nn.Identity()
    return ReLU6(owns_gradient=owns_gradient) if type(activation) is nn.ReLU6 else activation


def _fold(convolution: nn.Conv2d, batch_norm: nn.BatchNorm2d) -> None:
    """In float64, so that the one rounding is that of the result.

    The convolution keeps the signs of gamma, (K,1,1,1), with which its weights have those they had before.
    """

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
    if batch_norm.affine:
        convolution.register_buffer(
            "gamma_signs", batch_norm.weight.detach().sign().view(-1, 1, 1, 1), persistent=False
        )
