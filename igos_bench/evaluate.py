"""The only way to the network: micro-batches, precision, out-of-memory retry, counts of passes.

`Evaluator` is what a method gets as `evaluate`; its interface is stable for people's own methods.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from .config import Precision
from .errors import ImageError
from .fast import LARGEST_INPUT, FastNetwork
from .network import Normalised
from .precision import allow_tf32, autocast, forbid_rounding

Build = Callable[[slice], Tensor]
"""Makes the inputs `rows` of a long list when they are needed, so that the list is never held in memory."""


@dataclass
class Evaluator:
    """Runs a classifier on any number of inputs.

    Inputs (N,3,H,W) are on the scale of images, [0, 1], and never clamped; targets (N,) are classes; N is any number
    above 0. Every call runs micro-batches, counts its passes, and returns detached tensors of the inputs' type on their
    device, whatever the caller's grad mode. Where memory runs out the micro-batch is halved, with a warning, and stays
    so. `network` run by a method itself has none of this.

    NaN and infinity in inputs, logits or gradients raise ImageError: compared with NaN everything is False, and a
    search would go on from there to a number.

    `Build`: in the place of inputs, a function from a slice of the N rows to those inputs; it is called once a
    micro-batch, in order, so that they are never all in memory; where there is no room for some, again for fewer.

    Attributes:
        network: The classifier as it was trained, images in [0, 1] (N,3,H,W) -> logits (N,K); for rules of one's own.
        fast_network: The same function, as `fast.speed_up` makes it; the calls below run it, or `forward_network`.
        batch_size: Inputs in one micro-batch.
        precision: `bf16` runs the network under autocast, `tf32` with TF32 allowed; everything returned is in the
            inputs' own type.
        layers: Resolution -> the module of `network` whose output a method reads there: what the model's YAML names
            for the method, else the last ReLU. They are modules of `network`, which the calls below do not run;
            `activations` finds their outputs in the fast network, or runs `network` where folding lost them.
        forward_network: The same function without gradients, by another engine, for `logits` and `probability`; None
            has `fast_network` run those too. Micro-batches for it are multiples of its `piece`, if it has one
            and they are no smaller.
        float32_network: The same function in float32, for what a method asks for `in_float32`; None has `network` run
            it. In fp32 it is not asked.
        forwards, backwards: Passes so far, one an input; a gradient is one of each.
        notes: What a method counts of its own doing, for timing.csv.
    """

    network: nn.Module
    fast_network: nn.Module
    batch_size: int = 32
    precision: Precision = Precision.fp32
    layers: Mapping[int, nn.Module] = field(default_factory=dict)
    forward_network: Callable[[Tensor], Tensor] | None = None
    float32_network: Callable[[Tensor], Tensor] | None = None
    forwards: int = field(default=0, init=False)
    backwards: int = field(default=0, init=False)
    notes: Counter[str] = field(default_factory=Counter, init=False)

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits (N,K) of inputs (N,3,H,W)."""
        parts = self._micro_batches(inputs, len(inputs), self._piece())
        return torch.cat([self._logits(part) for _, part in parts])

    def probability(self, inputs: Tensor | Build, targets: Tensor, *, in_float32: bool = False) -> Tensor:
        """Softmax probability (N,) of `targets` (N,) for inputs (N,3,H,W), or for what `inputs(rows)` makes.

        Args:
            inputs: (N,3,H,W), or a `Build`.
            targets: (N,) classes.
            in_float32: Whatever the precision: for values whose small differences decide something.
        """
        found = []
        for rows, part in self._micro_batches(inputs, len(targets), self._piece(in_float32=in_float32)):
            probabilities = self._logits(part, in_float32=in_float32).softmax(1)
            found.append(probabilities.gather(1, targets[rows, None])[:, 0])
        return torch.cat(found)

    def gradient(
        self, inputs: Tensor | Build, targets: Tensor, of: Literal["probability", "logit"] = "probability"
    ) -> tuple[Tensor, Tensor]:
        """Values of the targets and their gradients to the inputs.

        Args:
            inputs: (N,3,H,W), or a `Build`.
            targets: (N,) classes.
            of: What is differentiated: the softmax probability of the target, or its logit.

        Returns:
            Values (N,) and gradients (N,3,H,W), each of an input's own target to that input; `gradients` streams them.
        """
        values, gradients = zip(*((v, g) for _, v, g in self.gradients(inputs, targets, of)), strict=True)
        return torch.cat(values), torch.cat(gradients)

    def gradients(
        self, inputs: Tensor | Build, targets: Tensor, of: Literal["probability", "logit"] = "probability"
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """`gradient`, yielded a micro-batch of n at a time, so that memory does not grow with N.

        Yields:
            The slice of the N rows, values (n,), gradients (n,3,H,W).
        """
        for rows, part in self._micro_batches(inputs, len(targets)):
            values, gradients = self._gradient(part, targets[rows], of)
            yield rows, values, gradients

    def activations(self, inputs: Tensor, targets: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor]:
        """What a layer gives out, and how the target's logit depends on it.

        Args:
            inputs: (N,3,H,W).
            targets: (N,) classes.
            layer: A module of `network`, such as one of `layers`; where it runs more than once, the last time counts.

        Returns:
            Its output and the gradients of the inputs' own target logits to it, both (N,C,h,w).
        """
        network, module = self.tapped(layer)

        def forward_backward(part: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
            leaves: list[Tensor] = []

            def cut(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
                """What comes before the layer is left out of autograd."""
                leaves.append(output.detach().requires_grad_())
                return leaves[-1].clone()  # a leaf may not be changed in place, as the next module may do

            handle = module.register_forward_hook(cut)
            try:
                with torch.enable_grad():
                    with self.autocast(part):
                        logits = network(part.detach())
                    chosen = _finite("logits", logits).gather(1, classes[:, None]).sum()
                    (slope,) = torch.autograd.grad(chosen, leaves[-1])
            finally:
                handle.remove()
            return leaves[-1].detach().to(part.dtype), _finite("gradients", slope).to(part.dtype)

        activations, gradients = self.passes(forward_backward, inputs, targets)
        return activations, gradients

    def passes(
        self, forward_backward: Callable[[Tensor, Tensor], tuple[Tensor, ...]], inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, ...]:
        """Run passes of a method's own on micro-batches.

        Args:
            forward_backward: One forward and one backward pass of inputs (n,3,H,W) and targets (n,): tensors (n,...).
            inputs: (N,3,H,W).
            targets: (N,) classes.

        Returns:
            Its tensors, (N,...).
        """
        found = []
        for rows, part in self._micro_batches(inputs, len(inputs)):
            found.append(self._halving(forward_backward, part, targets[rows]))
            self.count(len(part), backward=True)
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def tapped(self, layer: nn.Module) -> tuple[nn.Module, nn.Module]:
        """The fast network and where in it the layer's output can be seen, or else `network` and the layer."""
        if isinstance(self.fast_network, FastNetwork) and isinstance(self.network, Normalised):
            names = {module: name for name, module in self.network.body.named_modules()}
            if layer in names and (found := self.fast_network.tapped(names[layer])):
                return found
        return self.network, layer

    def _logits(self, inputs: Tensor, *, in_float32: bool = False) -> Tensor:
        def forward(part: Tensor) -> tuple[Tensor, ...]:
            if self._leaves_engine(in_float32):
                with torch.inference_mode(), forbid_rounding():
                    return ((self.float32_network or self.network)(part).to(part.dtype),)
            if self.forward_network:
                return (self.forward_network(part).to(part.dtype),)
            with torch.inference_mode(), self.autocast(part):
                return (self.fast_network(part).to(part.dtype),)

        (logits,) = self._halving(forward, inputs)
        self.count(len(inputs))
        # A clone outside inference mode is an ordinary tensor, which autograd and in-place code accept.
        return _finite("logits", logits).clone()

    def _gradient(self, inputs: Tensor, targets: Tensor, of: str) -> tuple[Tensor, Tensor]:
        def forward_backward(part: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
            part = part.detach().requires_grad_()
            with torch.enable_grad():
                with self.autocast(part):
                    logits = self.fast_network(part)
                scores = _finite("logits", logits).to(part.dtype)
                if of == "probability":
                    scores = scores.softmax(1)
                values = scores.gather(1, classes[:, None])[:, 0]
                (slope,) = torch.autograd.grad(values.sum(), part)
            return values.detach(), slope

        values, slopes = self._halving(forward_backward, inputs, targets)
        self.count(len(inputs), backward=True)
        return values, _finite("gradients", slopes)

    def _piece(self, *, in_float32: bool = False) -> int:
        """What a pass without a gradient runs at a time: a rest costs as much."""
        return 1 if self._leaves_engine(in_float32) else getattr(self.forward_network, "piece", 1)

    def _leaves_engine(self, in_float32: bool) -> bool:
        """Whether a pass is `float32_network`'s."""
        return in_float32 and self.precision is not Precision.fp32

    def _micro_batches(self, inputs: Tensor | Build, count: int, piece: int = 1) -> Iterator[tuple[slice, Tensor]]:
        start = 0
        while start < count:  # the micro-batch may be halved on the way
            # As many as needed, of one size: 20 inputs are better run as 10 + 10 than as 16 + 4. All in whole pieces.
            unit = piece if piece <= self.batch_size else 1
            parts = -(-(count - start) // (self.batch_size // unit * unit))
            size = -(-(count - start) // (parts * unit)) * unit
            rows = slice(start, min(start + size, count))
            try:
                part = inputs[rows] if isinstance(inputs, Tensor) else inputs(rows)
            except (RuntimeError, MemoryError) as error:
                self._halve(rows.stop - start, error)
                continue
            # The norm is no smaller than the largest and costs a tenth of it.
            if not (torch.linalg.vector_norm(part) <= LARGEST_INPUT or part.abs().max() <= LARGEST_INPUT):
                raise ImageError(f"the network is asked about inputs that are NaN or beyond {LARGEST_INPUT:,.0f}")
            yield rows, part
            start = rows.stop

    def autocast(self, inputs: Tensor) -> AbstractContextManager[object]:
        """The precision, for a forward pass of inputs (n,3,H,W)."""
        return autocast(self.precision, inputs.device)

    def _halving(self, call: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run `call` on the inputs; where memory runs out, on halves of them, and keep the smaller micro-batch."""
        try:
            with allow_tf32(self.precision):
                return call(*inputs)
        except (RuntimeError, MemoryError) as error:
            half = self._halve(len(inputs[0]), error)
        torch.cuda.empty_cache()  # does nothing without CUDA
        parts = [self._halving(call, *(tensor[a : a + half] for tensor in inputs)) for a in (0, half)]
        return tuple(torch.cat(pair) for pair in zip(*parts, strict=True))

    def _halve(self, count: int, error: RuntimeError | MemoryError) -> int:
        """Half of a micro-batch for which memory ran out, which is kept from now on; raises any other error."""
        if not is_out_of_memory(error) or count == 1:
            raise error
        half = (count + 1) // 2
        self.batch_size = min(self.batch_size, half)
        self.notes[f"micro-batch cut to {half}: out of memory"] += 1
        warnings.warn(f"out of memory at a micro-batch of {count}: going on with {half}", stacklevel=3)
        return half

    def count(self, inputs: int, *, backward: bool = False) -> None:
        """Count forward passes of so many inputs, and as many backward; for methods that run `network` themselves."""
        self.forwards += inputs
        self.backwards += inputs if backward else 0


NO_MEMORY = (
    *("allocate memory", "out of memory", "not enough memory", "bad_alloc", "ALLOC_FAILED"),
    "could not create a primitive",  # oneDNN, whatever it lacks: memory, where the same call has run on fewer inputs
)


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether memory ran out, on any device: the CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in NO_MEMORY)


def _finite(what: str, found: Tensor) -> Tensor:
    """What the network gave (N,...), without NaN and infinity; raises ImageError."""
    # A sum has NaN and infinity of any of its terms and costs a tenth of looking at each; only then is it looked.
    if not found.sum(dtype=torch.float32).isfinite() and (bad := int((~found.isfinite()).flatten(1).any(1).sum())):
        raise ImageError(f"the network's {what} are NaN or infinite for {bad} of {len(found)} inputs")
    return found
