"""The rules of Excitation Backprop, put under a network's own forward pass.

The forward pass runs under a mode that sees every torch function. A function that carries p, the winning probability,
becomes an autograd function whose backward pass is its rule; autograd then carries p down to the layer, which is cut
off from what comes before. A function without a rule is an error: p never takes a way that nobody thought about.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..errors import UserError
from ..onednn import LEAST_EXCITATION, FusedConvolution, fused_convolution


class _Call(NamedTuple):
    """A call of a torch function without its first arguments, the tensors that carry p."""

    function: Callable[..., Tensor]
    rest: tuple[Any, ...]
    options: Mapping[str, Any]
    signs: Tensor | None  # of the factors that folding put on the weights (K,1,1,1)


# The rules: p of the output, the inputs, and the output where there is a ReLU in the call -> p of each input.


def _share(weigh: Callable[[Tensor], Tensor], p: Tensor, inputs: Tensor) -> Tensor:
    """Hand p down through a linear map of weights that are not negative."""
    a = inputs.clamp(min=0).requires_grad_()
    with torch.enable_grad():
        excitation = weigh(a)
    (share,) = torch.autograd.grad(excitation, a, _quotient(p, excitation.detach()))
    return a.detach() * share


def _quotient(p: Tensor, excitation: Tensor) -> Tensor:
    """The quotient p / excitation, finite where nothing excites: each a with a weight is 0 there and takes nothing."""
    return p / excitation.clamp_(min=LEAST_EXCITATION)


def _weighted(call: _Call, p: Tensor, inputs: Tensor) -> tuple[Tensor]:
    weight = call.rest[0] if call.signs is None else call.rest[0] * call.signs
    positive = weight.clamp(min=0).to(inputs.dtype)
    options = {key: value for key, value in call.options.items() if key != "bias"}
    return (_share(lambda a: call.function(a, positive, None, *call.rest[2:], **options), p, inputs),)


def _fused(call: _Call, p: Tensor, inputs: Tensor, outputs: Tensor) -> tuple[Tensor]:
    convolution: FusedConvolution = call.rest[0]
    a = inputs.clamp(min=0)
    excitation = convolution.positive.run(a)
    quotient = torch.div(p, excitation, out=excitation)  # in the place of what is not needed any more
    if convolution.rectifier:
        torch.ops.aten.threshold_backward(quotient, outputs, 0, grad_input=quotient)
    return (convolution.positive.input_gradient(quotient, a.shape).to(a.dtype).mul_(a),)


def _averaged(call: _Call, p: Tensor, inputs: Tensor) -> tuple[Tensor]:
    return (_share(lambda a: call.function(a, *call.rest, **call.options), p, inputs),)


def _where_positive(call: _Call, p: Tensor, inputs: Tensor) -> tuple[Tensor]:
    return (torch.ops.aten.threshold_backward(p, inputs, 0),)


def _unchanged(call: _Call, p: Tensor, inputs: Tensor) -> tuple[Tensor]:
    return (p,)


def _split(call: _Call, p: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    left, right = left.clamp(min=0), right.clamp(min=0)
    total = left + right
    share = _quotient(p, total)
    return left * share, right * share


_RULES: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    **dict.fromkeys(("conv2d", "linear"), _weighted),
    **dict.fromkeys(("avg_pool2d", "adaptive_avg_pool2d", "mean"), _averaged),
    "fused_convolution": _fused,
    **dict.fromkeys(("relu", "relu_", "relu6", "hardtanh", "relu6_in_place", "dropout"), _where_positive),
    "batch_norm": _unchanged,
    **dict.fromkeys(("add", "add_"), _split),  # `+` and `+=` have these names too
}

# They only move elements, so their own backward pass is the rule; max pooling's goes to the argmax.
_AS_AUTOGRAD = {
    *("max_pool2d", "adaptive_max_pool2d", "pad", "clone", "contiguous", "__getitem__"),
    *("flatten", "view", "reshape", "squeeze", "unsqueeze", "permute", "transpose"),
    *("cat", "stack", "chunk", "split", "narrow"),
}


class _Excite(torch.autograd.Function):
    """A torch function with a rule as its backward pass."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *inputs: Tensor) -> Tensor:
        ctx.call = call
        # A sum in place destroys an input of its rule. ReLU in place does not: what was positive stays so.
        in_place_sum = call.function.__name__ == "add_"
        saved = [tensor.clone() if in_place_sum else tensor for tensor in inputs]
        version = inputs[0]._version
        output = call.function(*inputs, *call.rest, **call.options)
        if inputs[0]._version != version:
            ctx.mark_dirty(inputs[0])
        if call.function is fused_convolution:
            saved.append(output)
        ctx.save_for_backward(*saved)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        return None, *_RULES[call.function.__name__](call, gradients[0], *ctx.saved_tensors)


class Rules(TorchFunctionMode):
    """Gives every torch function that carries p its rule; what carries p is what requires a gradient.

    Attributes:
        leaf: The layer's output, where p is read.
    """

    leaf: Tensor

    def __init__(self, network: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.names = {module: name for name, module in network.named_modules()}
        self.layer = layer
        self.running: list[nn.Module] = []
        # What made the tensors that carry p; None made the leaf. The mode does not see autograd functions of other
        # people and compiled code: tensors from there have another origin.
        self.origins: set[object] = {None}

    def enter(self, module: nn.Module, _inputs: object) -> None:
        """Forward pre-hook of every module."""
        self.running.append(module)

    def leave(self, module: nn.Module, _inputs: object, output: Any) -> Any:
        """Forward hook of every module; cuts the layer off from what comes before it."""
        if module is self.layer:
            self.leaf = output.detach().requires_grad_()
            output = self.leaf.clone()  # a leaf may not be changed in place, as the next module may do
        self._carriers(output)
        self.running.pop()
        return output

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run `function`, with its rule where it carries p."""
        options = kwargs or {}
        carriers = self._carriers((args, options))
        name = function.__name__
        if carriers and name in _RULES:
            count = 2 if _RULES[name] is _split else 1
            if not _fits(function, args, options, carriers):
                raise self._no_rule(f"this use of {name}")
            signs = getattr(self.running[-1], "gamma_signs", None)
            output = _Excite.apply(_Call(function, args[count:], options, signs), *args[:count])
        else:
            output = function(*args, **options)
            if carriers and name not in _AS_AUTOGRAD and _with_gradient(output):
                raise self._no_rule(name)
        self.origins.update(tensor.grad_fn for tensor in _with_gradient(output))
        return output

    def _carriers(self, values: object) -> list[Tensor]:
        carriers = _with_gradient(values)
        for tensor in carriers:
            if tensor.grad_fn not in self.origins:
                raise self._no_rule(type(tensor.grad_fn).__name__.removesuffix("Backward"))
        return carriers

    def _no_rule(self, what: str) -> UserError:
        module = self.running[-1]
        return UserError(
            f"excitation_bp has no rule for {what}, which runs in {self.names[module]!r} ({type(module).__name__}): it "
            "explains networks of convolution, linear, ReLU, ReLU6, pooling, dropout, batch norm and residual sums; "
            "choose another method, a layer above, or a model without it"
        )


def _with_gradient(values: object) -> list[Tensor]:
    leaves = [values] if isinstance(values, Tensor) else tree_leaves(values)
    return [value for value in leaves if isinstance(value, Tensor) and value.requires_grad]


def _fits(
    function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any], carriers: list[Tensor]
) -> bool:
    """Whether a call is the one that its rule is about: p in the places for it and nowhere else."""
    rule = _RULES[function.__name__]
    if rule is _split:
        is_plain = len(args) == 2 and not options and all(isinstance(value, Tensor) for value in args)
        return is_plain and args[0].shape == args[1].shape
    if rule is _weighted and len(args) < 2:
        return False
    if function.__name__ == "hardtanh":
        bound = inspect.signature(F.hardtanh).bind(*args, **options)
        bound.apply_defaults()
        if bound.arguments["min_val"] != 0:
            return False
    return len(args) > 0 and all(tensor is args[0] for tensor in carriers)


@contextmanager
def rules_in_force(network: nn.Module, layer: nn.Module) -> Iterator[Rules]:
    """The mode and its hooks on every module, gone afterwards whatever happened."""
    rules = Rules(network, layer)
    with ExitStack() as stack:
        for module in rules.names:
            stack.callback(module.register_forward_pre_hook(rules.enter).remove)
            stack.callback(module.register_forward_hook(rules.leave).remove)
        yield stack.enter_context(rules)
