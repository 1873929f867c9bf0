"""Winograd's convolution with kernels of 3 x 3: a quarter of the multiplications, as batches of matrix products.

Four outputs of a correlation with three weights g need six inputs d, and not twelve products of them but six:

    y = A^T [(G g) . (B^T d)],

polynomials multiplied by their values at the points 0, 1, -1, 2, -2 and infinity. In two dimensions a tile of 4 x 4
outputs needs 36 products of each pair of channels in the place of 144,

    Y = A^T [(G g G^T) . (B^T D B)] A,

and over tiles and channels each of the 36 is a product of matrices, (tiles, C) with (C, K). B^T and A^T on both sides
are one matrix too, their Kronecker products with themselves. G g G^T is made once, in float64. A row of B^T is zero but
for small integers, so that rounding grows little: on VGG19's layers the error is up to twice that of oneDNN's calls.

The gradient to the inputs is the convolution of the outputs' gradient with the kernel turned around, its channels
transposed. Outputs and inputs read backwards are correlated with the kernel backwards: (A^T turned upside down) and
(B^T with its columns backwards) turn the kernel, and G g G^T serves both.

What makes it fast is that the buffers of a block of tiles stay in the cache: few tiles at a time, a number that is
fixed. An input's outputs had the same bytes in whatever micro-batch and block they were computed.

Source: Winograd, Arithmetic Complexity of Computations, SIAM 1980; Lavin and Gray, Fast Algorithms for Convolutional
Neural Networks, CVPR 2016 (arXiv:1509.09308), section 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor, nn

from .machine import processor

OUTPUTS, INPUTS = 4, 6  # rows and columns of a tile
TILES = 196
"""Of a block: enough for the matrix products to be fast, few enough for the caches. A map of 56 x 56 has as many."""

B_TRANSPOSED = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
G = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
A_TRANSPOSED = [
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
]
LEAST_CHANNELS = 128
LEAST_SIZE = 14
ONES = INPUTS + 1  # the place (1, 1), which A^T and A add to each output of a tile, as it is
UNLIMITED = (-math.inf, math.inf)


class Winograd:
    """A convolution with kernels of 3 x 3, stride 1 and padding 1, and its gradient.

    Args:
        weight: (K,C,3,3), of the type that all is computed in.
        bias: (K,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        to_points = torch.tensor(G, dtype=torch.float64)
        values = torch.einsum("ai,kcij,bj->abck", to_points, weight.double(), to_points)
        self.weight = values.flatten(0, 1).to(weight.dtype).contiguous()  # (36,C,K)
        self.bias = bias
        b, a = (torch.tensor(rows, dtype=weight.dtype) for rows in (B_TRANSPOSED, A_TRANSPOSED))
        self.inwards, self.outwards = torch.kron(b, b), torch.kron(a, a)  # (36,36), (16,36)
        b, a = b.flip(1), a.flip(0)
        self.turned_inwards, self.turned_outwards = torch.kron(b, b), torch.kron(a, a)

    def convolve(self, inputs: Tensor, limits: tuple[float, float] = UNLIMITED) -> Tensor:
        """Inputs (N,C,H,W) -> outputs (N,K,H,W) in channels_last, clamped to `limits`; NaN stays."""
        return _convolve(inputs, self.weight, self.bias, self.inwards, self.outwards, limits)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """The outputs' gradient (N,K,H,W) -> that of the inputs (N,C,H,W), in channels_last."""
        weight = self.weight.transpose(1, 2)
        return _convolve(gradient, weight, None, self.turned_inwards, self.turned_outwards, UNLIMITED)


def pays(convolution: nn.Module, size: tuple[int, int], dtype: torch.dtype) -> bool:
    """Whether it is the faster way for a convolution of inputs of a size (H,W).

    It does not go by the micro-batch, so that an input is always computed in the same way.
    Measured beside oneDNN's calls on one thread of a Xeon, times as fast, forward and gradient, at micro-batches of

    | channels, map | 1 | 2 | 4 | 8 |
    |---|---|---|---|---|
    | 64, 56 x 56 | 0.70, 0.72 | 0.78, 0.79 | 0.83, 0.78 | 0.77, 0.77 |
    | 128, 56 x 56 | 1.26, 1.00 | 1.07, 1.04 | 1.26, 1.21 | 1.34, 1.29 |
    | 128, 28 x 28 | 1.06, 0.94 | 1.25, 1.16 | 1.26, 1.21 | 1.37, 1.19 |
    | 256, 14 x 14 | 0.93, 0.75 | 1.10, 0.91 | 1.32, 1.06 | 1.33, 1.13 |
    | 512, 7 x 7 | 0.60, 0.54 | 0.69, 0.62 | 0.87, 0.81 | 1.35, 1.15 |
    | 512, 14 x 14 | 0.81, 0.71 | 1.22, 0.90 | 1.67, 1.30 | 1.80, 1.57 |
    | 256, 56 x 56 | 1.70, 1.67 | 1.69, 1.70 | 1.93, 1.76 | 1.75, 1.81 |
    | 512, 28 x 28 | 1.77, 1.51 | 2.08, 1.81 | 2.13, 2.04 | 2.19, 2.11 |

    VGG19 on two idle cores: forward 1.44 and 1.57 at micro-batches of 4 and 8, with the gradient 1.36 and 1.40. Where
    others use the cores too, each of a block's calls waits for the other thread to get a turn, and it took twice as
    long as oneDNN, which waits once a layer; where waiting threads sleep (OMP_WAIT_POLICY=passive) it was 1.3 to 1.45
    times as fast. More than two threads were not measured.

    With few channels the transforms cost more than is saved, on small maps there are few tiles to a product. From 64 to
    128 channels at 112 x 112 it is 1.1 and 1.0.
    """
    if type(convolution) is not nn.Conv2d or dtype is not torch.float32 or not products_are_fast():
        return False
    kind = (convolution.kernel_size, convolution.stride, convolution.padding, convolution.groups)
    is_large = min(convolution.in_channels, convolution.out_channels) >= LEAST_CHANNELS and min(size) >= LEAST_SIZE
    return is_large and kind == ((3, 3), (1, 1), (1, 1), 1)


@cache
def products_are_fast() -> bool:
    """Whether matrix products are MKL's, on a processor of Intel's: on others it keeps from the fastest instructions.

    On two cores of an AMD EPYC they reached 205 GFLOP/s, oneDNN's convolutions 520, and at micro-batches of 8 this was
    0.53 (128 channels, 112 x 112) to 1.01 times as fast (512, 28 x 28), forward. Where torch has no MKL nothing was
    measured.
    """
    return torch.backends.mkl.is_available() and "Intel" in processor(torch.device("cpu"))


def _blocks(count: int, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Which inputs, and rows of tiles in them, come together: several inputs whole, or one in parts of equal height."""
    together = max(1, TILES // (rows * columns))
    height = math.ceil(rows / math.ceil(rows * columns / TILES))
    for first in range(0, count, together):
        for row in range(0, rows, height):
            yield slice(first, min(first + together, count)), slice(row, min(row + height, rows))


def _convolve(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    inwards: Tensor,
    outwards: Tensor,
    limits: tuple[float, float],
) -> Tensor:
    """Inputs (N,C,H,W), weights (36,C,K) and the transforms' matrices (36,36), (16,36) -> outputs (N,K,H,W)."""
    (count, channels, height, width), kernels = inputs.shape, weight.shape[2]
    rows, columns = math.ceil(height / OUTPUTS), math.ceil(width / OUTPUTS)
    last = inputs.permute(0, 2, 3, 1)
    outputs = inputs.new_empty(count, rows, OUTPUTS, columns, OUTPUTS, kernels)
    shape = None
    for images, part in _blocks(count, rows, columns):
        found = (images.stop - images.start, part.stop - part.start, columns)
        if found != shape:  # buffers serve all blocks that are as large: new memory is slow
            shape = found
            tiles = math.prod(shape)
            padded = inputs.new_zeros(shape[0], OUTPUTS * shape[1] + 2, OUTPUTS * columns + 2, channels)
            windows = padded.unfold(1, INPUTS, OUTPUTS).unfold(2, INPUTS, OUTPUTS)  # (n,rows,columns,C,6,6)
            pixels = inputs.new_empty(INPUTS, INPUTS, *shape, channels)
            values = inputs.new_empty(INPUTS * INPUTS, tiles, channels)
            products = inputs.new_empty(INPUTS * INPUTS, tiles, kernels)
            results = inputs.new_empty(OUTPUTS, OUTPUTS, *shape, kernels)
        above, below = OUTPUTS * part.start - 1, OUTPUTS * part.stop + 1  # rows of the inputs, with the padding
        top, bottom = max(above, 0), min(below, height)
        padded[:, : top - above].zero_()
        padded[:, bottom - above :].zero_()
        padded[:, top - above : bottom - above, 1 : width + 1] = last[images, top:bottom]
        pixels.copy_(windows.permute(4, 5, 0, 1, 2, 3))
        torch.mm(inwards, pixels.flatten(0, 1).flatten(1), out=values.flatten(1))
        torch.bmm(values, weight, out=products)
        if bias is not None:
            products[ONES] += bias
        torch.mm(outwards, products.flatten(1), out=results.view(OUTPUTS * OUTPUTS, -1))
        target = outputs[images, part].permute(2, 4, 0, 1, 3, 5)  # (4,4,n,rows,columns,K), as the results are
        torch.clamp(results, *limits, out=target)
    whole = outputs.flatten(3, 4).flatten(1, 2)
    return whole[:, :height, :width].contiguous().permute(0, 3, 1, 2)
