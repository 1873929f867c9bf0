"""A network and its faster equal: batch norm folded away, channels last, and on a CPU the calls of `onednn`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, fx, nn

from . import fuse, onednn
from .config import INPUT_SIZE, Precision
from .errors import first_line
from .fold import fold_batch_norms
from .leading import keep_in_float32, leading_convolutions
from .network import Normalised
from .precision import autocast

LOGIT_TOLERANCE = 1e-4  # times max(1, the image's largest |logit|): rounding is of the scale of what is summed
GRADIENT_TOLERANCE = 0.05  # of the gradient's norm: rounding moves activations over the kinks of ReLUs, 0.006 was seen
BF16_TOLERANCE = 4  # times what plain autocast does, on top: twice that was seen, of logits
LARGEST_INPUT = 1e6
"""Of the absolute values of images, perturbed ones too: what `bounds` begins with."""


class _Scaled(Normalised):
    """`Normalised` in one pass over memory: images / std - mean / std."""

    scale: Tensor
    shift: Tensor

    def __init__(self, body: nn.Module, network: Normalised) -> None:
        super().__init__(body, network.mean.flatten().tolist(), network.std.flatten().tolist())
        self.register_buffer("scale", 1 / self.std, persistent=False)
        self.register_buffer("shift", -self.mean / self.std, persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """As `Normalised` does, but for rounding."""
        return torch.addcmul(self.shift, images, self.scale)


class FastNetwork(_Scaled):
    """A traced network that computes what another one does.

    Args:
        body: from `fold_batch_norms`, its nodes marked with the layers that they are the outputs of.
        network: the other one.
    """

    def __init__(self, body: fx.GraphModule, network: Normalised) -> None:
        super().__init__(body, network)
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.tapped = lru_cache(maxsize=4)(self._tapped)

    def _tapped(self, layer: str) -> tuple[nn.Module, nn.Module] | None:
        """The same network with a module of its own behind a layer, to be hooked; None where it lost that layer.

        Args:
            layer: a module's name in the body of the network that this one is an equal of.

        Returns:
            The network, which shares all modules with this one, and the module, which gives out what it gets.
        """
        body = cast(fx.GraphModule, self.body)
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        output = graph.graph_copy(body.graph, copies)
        marked = [copy for node, copy in copies.items() if layer in node.meta.get("layers", ())]
        if len(marked) != 1:
            return None
        graph.output(output)
        with graph.inserting_after(marked[0]):
            tap = graph.call_module("tap", (marked[0],))
        marked[0].replace_all_uses_with(tap, lambda reader: reader is not tap)
        module = body.get_submodule(str(marked[0].target)) if marked[0].op == "call_module" else None
        # The trace of what is negative would break a max pooling's ties, and the gradient go to another zero.
        is_leaky = isinstance(module, onednn.FusedConvolution) and module.rectifier is onednn.RELU
        modules = {**dict(body.named_modules()), "tap": nn.ReLU() if is_leaky else nn.Identity()}
        traced = fx.GraphModule(modules, graph)
        tapped = _Scaled(traced, self)
        return tapped.to(self.mean.device).eval(), traced.get_submodule("tap")


def speed_up(
    network: Normalised, device: torch.device, precision: Precision = Precision.fp32, layers: Collection[str] = ()
) -> tuple[Normalised, bool]:
    """The faster equal of a network on a device, or the network itself in channels_last where there is none.

    Args:
        network: in eval mode, on the CPU.
        device: where it will run.
        precision: what it will run in; `bf16` under autocast.
        layers: names of modules whose outputs it shall be able to show, see `FastNetwork.tapped`.

    Returns:
        It, on the device, and whether batch norms were folded in it. It is checked against `network`: logits within
        1e-4 of the largest, the gradient within 5 % of its norm; in bf16 within four times what plain autocast does to
        each, beyond that. Where it fails it is left out, with a warning.
    """
    try:
        for made_for in dict.fromkeys((Precision.fp32, precision)):
            fast, folded = _built(network, device, made_for, layers)
            if fast is not network and (fault := _fault(network, fast, made_for)):
                warnings.warn(f"the network is left as it is: made faster, {fault}", stacklevel=3)
                fast, folded = network, False
                break
    except Exception as error:  # torch.fx meets arbitrary Python
        reason = f"batch norm is not folded: the network cannot be traced ({first_line(error)})"
        warnings.warn(reason, stacklevel=3)
        fast, folded = network, False
    return fast.to(memory_format=torch.channels_last).to(device), folded


def _built(
    network: Normalised, device: torch.device, precision: Precision, layers: Collection[str]
) -> tuple[Normalised, bool]:
    body, folded = fold_batch_norms(network.body, layers)
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    leading = leading_convolutions(body) if precision is Precision.bf16 else []
    fused = 0
    if device.type == "cpu" and onednn.is_available(dtype):
        fused = fuse.fuse(body, dtype, leading, largest_input=largest_normalised(network))
    if not fused:
        keep_in_float32(body, leading)
    return (FastNetwork(body, network) if folded or fused or leading else network), folded > 0


def largest_normalised(network: Normalised) -> float:
    """What the absolute values behind the normalisation stay below: the `largest_input` of `bounds`."""
    extremes = torch.tensor([-LARGEST_INPUT, LARGEST_INPUT]).view(2, 1, 1, 1)
    return float(network.normalise(extremes).abs().max())


def _fault(network: nn.Module, fast: nn.Module, precision: Precision) -> str | None:
    """What is wrong with the fast network on random images; None where nothing is."""
    images = _random_images()
    exact = _logits_and_slope(network, images, Precision.fp32)
    found = _distances(exact, _logits_and_slope(fast, images.to(memory_format=torch.channels_last), precision))
    allowed = [LOGIT_TOLERANCE, GRADIENT_TOLERANCE]
    if precision is Precision.bf16:
        usual = _distances(exact, _logits_and_slope(network, images, precision))
        allowed = [tolerance + BF16_TOLERANCE * far for tolerance, far in zip(allowed, usual, strict=True)]
    said = ("its logits move by {:.2g}", "its gradient moves by {:.2g} of its norm")
    for far, most, words in zip(found, allowed, said, strict=True):
        if not far <= most:
            return words.format(far) + (" in bfloat16" if precision is Precision.bf16 else "")
    return None


def logits_fault(network: nn.Module, other: Callable[[Tensor], Tensor], precision: Precision) -> str | None:
    """`_fault` of something that gives no gradient."""
    images = _random_images()
    with torch.inference_mode():
        exact = network(images)
        allowed = LOGIT_TOLERANCE
        if precision is Precision.bf16:
            with autocast(precision, images.device):
                allowed += BF16_TOLERANCE * _moved(exact, network(images).float())
        moved = _moved(exact, other(images))
    return None if moved <= allowed else f"its logits move by {moved:.2g}"


def _random_images() -> Tensor:
    return torch.rand(2, 3, INPUT_SIZE, INPUT_SIZE, generator=torch.Generator().manual_seed(0))


def _moved(logits: Tensor, others: Tensor) -> float:
    """How far logits are, of the scale of the image's largest one."""
    scale = logits.abs().amax(1, keepdim=True).clamp(min=1)
    return float(((others - logits).abs() / scale).max())


def _distances(exact: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """How far logits are, of the scale of the image's largest one, and gradients, of their norm."""
    (logits, slope), (others, other_slope) = exact, found
    turned = (other_slope - slope).norm() / slope.norm().clamp(min=torch.finfo(slope.dtype).tiny)
    return _moved(logits, others), float(turned)


def _logits_and_slope(
    network: Callable[[Tensor], Tensor], images: Tensor, precision: Precision
) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of the largest one to the images."""
    with torch.enable_grad():
        inputs = images.detach().requires_grad_()
        with autocast(precision, images.device):
            logits = network(inputs).float()
        (slope,) = torch.autograd.grad(logits.max(1).values.sum(), inputs)
    return logits.detach(), slope
