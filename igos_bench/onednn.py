"""A folded network on a CPU, in oneDNN's own terms: convolution, bias and ReLU in one call, the gradient another.

torch runs a convolution, then its ReLU over the output again, and arranges the weights anew in every call. oneDNN does
the first two in one pass over memory, with weights that are arranged once; torch's own compiler calls it so, and these
are its operators. The gradient to the input of a convolution of stride 1 is again a convolution, of the gradient with
the kernel turned around,

    d/dx sum(g . (w * x)) = turned(w) * g,    padding k - 1 - p,

and runs the same way. That of a strided one on few channels, as of images, is a convolution as well: of the kernel's
phases, every s-th row and column of it, whose outputs lie side by side. Wide ones with kernels of 3 x 3 are Winograd's
where that is faster, see `winograd.pays`. `make bench` measures what it is worth. It needs no compiler, and where a
torch lacks these operators, or a network has a convolution of another kind, that part runs as it was.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from . import winograd
from .fold import SameConvolution

FEW_CHANNELS = 4
SHAPES_KEPT = 8
"""For how many shapes of inputs a convolution keeps its arranged weights: a full micro-batch, and rests of others.

Memory grows with each new size of a micro-batch, up to so many, by about what the network's weights take: by 264 MB for
the 230 MB of ResNet-152 in fp32, with the gradient.
"""
LEAST_EXCITATION = 1e-30
"""Below it Excitation BP's p is lost in part, as it is at 0; far from where sums of its reciprocals would overflow."""


class Rectifier(NamedTuple):
    """A ReLU in oneDNN's words, the limits it clamps to, and its backward pass: gradient, outputs, where to write."""

    name: str
    scalars: list[float]
    limits: tuple[float, float]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]


# oneDNN's own ReLU is max(x, 0), which is 0 of NaN: a network that breaks would go on to a probability. With a slope
# for what is negative NaN stays, and minus infinity too. It is too small to be seen beside any other activation.
RELU = Rectifier(
    "leaky_relu",
    [1e-30],
    (0.0, math.inf),
    lambda g, y, out: torch.ops.aten.threshold_backward.grad_input(g, y, 0, grad_input=out),
)
# This is 0 of NaN: for where none can be.
RELU6 = Rectifier(
    "hardtanh",
    [0.0, 6.0],
    (0.0, 6.0),
    lambda g, y, out: torch.ops.aten.hardtanh_backward.grad_input(g, y, 0, 6, grad_input=out),
)


def is_available(dtype: torch.dtype) -> bool:
    """Whether this torch has the operators, and the processor the type."""
    names = ("_convolution_pointwise", "_reorder_convolution_weight", "_is_mkldnn_bf16_supported")
    there = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)
    return there and (dtype is torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


class _Arranged(NamedTuple):
    """What a convolution needs for inputs of one shape; `turned` is None where the gradient is torch's own.

    `size` is that of the gradient spread out to stride 1.
    """

    weight: Tensor
    padding: tuple[int, int]
    turned: Tensor | None
    turned_padding: tuple[int, int]
    size: tuple[int, int]


class FusedConvolution(nn.Module):
    """A convolution, its bias and the ReLU behind it in one call.

    Args:
        convolution: an `nn.Conv2d` or `SameConvolution` without dilation, padded with zeros.
        rectifier: what stands behind it, if anything does.
        owns_gradient: nobody else reads the gradient that its output gets: it may be overwritten.
        dtype: of the products; inputs of another type are converted.
        tiled: whether it may be Winograd's where that is faster: outputs are then exact to the scale of their tile, and
            not each to its own.
    """

    def __init__(
        self,
        convolution: nn.Conv2d | SameConvolution,
        rectifier: Rectifier | None,
        *,
        owns_gradient: bool,
        dtype: torch.dtype,
        tiled: bool = True,
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.stride = (convolution.stride[0], convolution.stride[1])
        self.groups = convolution.groups
        self.bias = None if convolution.bias is None else convolution.bias.detach().to(dtype)
        self.rectifier = rectifier
        self.owns_gradient = owns_gradient
        self.dtype = dtype
        self.tiled = tiled
        self._arranged = lru_cache(SHAPES_KEPT)(self._arrange)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (N,C,H,W) -> outputs (N,K,h,w) of type `dtype`."""
        return fused_convolution(inputs, self)

    def run(self, inputs: Tensor) -> Tensor:
        """`forward`, without autograd."""
        inputs = inputs.to(self.dtype)
        if self._is_tiled(inputs.shape):
            return self._winograd.convolve(inputs, self.rectifier.limits if self.rectifier else winograd.UNLIMITED)
        arranged = self._arranged(tuple(inputs.shape))
        return _convolve(
            inputs, arranged.weight, self.bias, arranged.padding, self.stride, self.groups, self.rectifier
        )  # fmt: skip

    @cached_property
    def positive(self) -> FusedConvolution:
        """The convolution with max(W, 0), W up to a positive factor a channel what it was before folding.

        Its bias is `LEAST_EXCITATION`, so that one may divide by what it makes of inputs that are not negative: none of
        it is Winograd's, whose rounding would be larger than that, and of either sign.
        """
        convolution = copy.deepcopy(self.convolution)
        signs = getattr(convolution, "gamma_signs", None)
        weight = convolution.weight if signs is None else convolution.weight * signs
        convolution.weight = nn.Parameter(weight.clamp(min=0), requires_grad=False)
        convolution.bias = nn.Parameter(weight.new_full((len(weight),), LEAST_EXCITATION), requires_grad=False)
        return FusedConvolution(convolution, None, owns_gradient=True, dtype=self.dtype, tiled=False)

    def input_gradient(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """From the gradient (N,K,h,w) of the convolution's output to that of its inputs, of `shape` (N,C,H,W)."""
        if self._is_tiled(shape):
            return self._winograd.input_gradient(gradient)
        arranged = self._arranged(tuple(shape))
        if arranged.turned is not None and self._has_phases:
            phases = _convolve(gradient, arranged.turned, None, arranged.turned_padding, (1, 1), 1)
            return _side_by_side(phases, self.stride, arranged.padding, shape)
        if arranged.turned is not None:
            spread = self._spread(gradient, arranged.size)
            return _convolve(spread, arranged.turned, None, arranged.turned_padding, (1, 1), self.groups)
        weight, padding = self._kernel(shape)
        # Only its shape and format are looked at.
        inputs = torch.empty(shape, dtype=self.dtype, memory_format=torch.channels_last)
        slope, _, _ = torch.ops.aten.convolution_backward(
            gradient, inputs, weight.to(self.dtype), None, self.stride, padding, (1, 1), False, (0, 0), self.groups,
            (True, False, False),
        )  # fmt: skip
        return cast(Tensor, slope)

    def _spread(self, gradient: Tensor, size: tuple[int, int]) -> Tensor:
        """A strided convolution's gradient on the grid of its inputs, (N,K,*size), with zeros between."""
        if self.stride == (1, 1):
            return gradient
        spread = gradient.new_zeros(len(gradient), *size, gradient.shape[1]).permute(0, 3, 1, 2)
        spread[:, :, :: self.stride[0], :: self.stride[1]][:, :, : gradient.shape[2], : gradient.shape[3]] = gradient
        return spread

    def _is_tiled(self, shape: torch.Size) -> bool:
        return self.tiled and winograd.pays(self.convolution, (shape[2], shape[3]), self.dtype)

    @cached_property
    def _winograd(self) -> winograd.Winograd:
        return winograd.Winograd(self.convolution.weight.detach(), self.bias)

    @property
    def _has_phases(self) -> bool:
        """Whether the gradient is the convolution of phases: the fewer the channels, the slower torch's own way."""
        return self.stride != (1, 1) and self.groups == 1 and self.convolution.weight.shape[1] <= FEW_CHANNELS

    @property
    def _turns(self) -> bool:
        """Whether the gradient is a convolution of ours.

        Of strided ones only the depthwise in bfloat16: oneDNN's own backward pass of these takes 30 times longer.
        """
        is_depthwise = self.groups == self.convolution.weight.shape[0] and self.convolution.weight.shape[1] == 1
        return self.stride == (1, 1) or (is_depthwise and self.dtype is torch.bfloat16)

    def _kernel(self, shape: tuple[int, ...]) -> tuple[Tensor, tuple[int, int]]:
        if isinstance(self.convolution, SameConvolution):
            return self.convolution.symmetric((shape[2], shape[3]))
        return self.convolution.weight, cast(tuple[int, int], self.convolution.padding)

    def _arrange(self, shape: tuple[int, ...]) -> _Arranged:
        weight, padding = self._kernel(shape)
        arrange = torch.ops.mkldnn._reorder_convolution_weight
        outputs, inputs, height, width = weight.shape  # `inputs` of one group
        turned_padding = (height - 1 - padding[0], width - 1 - padding[1])
        size = (shape[2] + 2 * padding[0] - height + 1, shape[3] + 2 * padding[1] - width + 1)
        turned = None
        if self._has_phases:
            kernel = _phases(weight, self.stride)
            turned_padding = (kernel.shape[2] - 1, kernel.shape[3] - 1)
            rows, columns = (-(-length // stride) for length, stride in zip(size, self.stride, strict=True))
            turned = arrange(
                kernel.to(self.dtype), turned_padding, (1, 1), (1, 1), 1, (shape[0], outputs, rows, columns)
            )
        elif self._turns and min(turned_padding) >= 0:
            by_group = weight.view(self.groups, outputs // self.groups, inputs, height, width)
            kernel = by_group.transpose(1, 2).flip(-1, -2).reshape(-1, outputs // self.groups, height, width)
            turned = arrange(
                kernel.to(self.dtype).contiguous(), turned_padding, (1, 1), (1, 1), self.groups,
                (shape[0], outputs, *size),
            )  # fmt: skip
        kept = arrange(weight.to(self.dtype).contiguous(), padding, self.stride, (1, 1), self.groups, shape)
        return _Arranged(kept, padding, turned, turned_padding, size)


def fused_convolution(inputs: Tensor, convolution: FusedConvolution) -> Tensor:
    """The call of a `FusedConvolution`; a function that modes of torch can see."""
    if has_torch_function_unary(inputs):
        found: Tensor = handle_torch_function(fused_convolution, (inputs,), inputs, convolution)
        return found
    if torch.is_grad_enabled() and inputs.requires_grad:
        return cast(Tensor, _Differentiable.apply(inputs, convolution))
    return convolution.run(inputs)


def _phases(weight: Tensor, stride: tuple[int, int]) -> Tensor:
    """Kernels (s*t*C,K,ceil(h/s),ceil(w/t)) of the gradient's rows and columns of equal remainder, of (K,C,h,w)."""
    (s, t), (outputs, inputs, height, width) = stride, weight.shape
    rows, columns = -(-height // s), -(-width // t)
    by_phase = F.pad(weight, (0, columns * t - width, 0, rows * s - height)).view(outputs, inputs, rows, s, columns, t)
    turned = by_phase.flip(2, 4).permute(3, 5, 1, 0, 2, 4)
    return turned.reshape(s * t * inputs, outputs, rows, columns).contiguous()


def _side_by_side(phases: Tensor, stride: tuple[int, int], padding: tuple[int, int], shape: torch.Size) -> Tensor:
    """Phases (N,s*t*C,h,w) as a gradient of `shape` (N,C,H,W): rows s*q+r-padding are those of phase r, and columns."""
    (s, t), (count, channels, height, width) = stride, shape
    rows, columns = phases.shape[2:]
    by_row = phases.permute(0, 2, 3, 1).reshape(count, rows, columns, s, t * channels).transpose(2, 3)
    whole = by_row.reshape(count, rows * s, columns * t, channels).permute(0, 3, 1, 2)
    missing = (padding[0] + height - rows * s, padding[1] + width - columns * t)
    if max(missing) > 0:  # the kernel never got there
        whole = F.pad(whole, (0, max(missing[1], 0), 0, max(missing[0], 0)))
    return whole[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width]


def _convolve(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: tuple[int, int],
    stride: tuple[int, int],
    groups: int,
    rectifier: Rectifier | None = None,
) -> Tensor:
    name, scalars = (rectifier.name, rectifier.scalars) if rectifier else ("none", [])
    outputs: Tensor = torch.ops.mkldnn._convolution_pointwise(
        inputs, weight, bias, padding, stride, (1, 1), groups, name, scalars, ""
    )
    return outputs


class _Differentiable(torch.autograd.Function):
    """A `FusedConvolution`; only its outputs are kept for the backward pass, and those only where a ReLU is behind."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, convolution: FusedConvolution) -> Tensor:
        outputs = convolution.run(inputs)
        ctx.convolution, ctx.shape, ctx.dtype = convolution, inputs.shape, inputs.dtype
        if convolution.rectifier:
            ctx.save_for_backward(outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        convolution: FusedConvolution = ctx.convolution
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        if convolution.rectifier:
            (outputs,) = ctx.saved_tensors
            # In bfloat16 writing into the gradient is the slower way.
            owned = (convolution.owns_gradient or gradient is not gradients[0]) and gradient.dtype is torch.float32
            out = gradient if owned else torch.empty_like(gradient)
            gradient = convolution.rectifier.backward(gradient, outputs, out)
        return convolution.input_gradient(gradient, ctx.shape).to(ctx.dtype), None
