"""How large a network's activations can become: where they cannot overflow, no NaN comes into being."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from .fold import ReLU6, SameConvolution

LARGEST = 1e37
"""Of a bound that counts: a tenth of what float32 and bfloat16 hold."""

_WEIGHTED = (nn.Conv2d, SameConvolution, nn.Linear)
_MEANS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d)
_THE_SAME = (nn.Identity, nn.Dropout, nn.Flatten, torch.flatten, "flatten")
_NO_LARGER = (*_THE_SAME, *_MEANS, nn.ReLU, nn.MaxPool2d, F.relu, torch.relu)
_AT_MOST_6 = (nn.ReLU6, ReLU6, F.relu6)
_SUMS = (operator.add, operator.iadd, torch.add)
_KEEP_NAN = (*_WEIGHTED, *_MEANS, *_THE_SAME, *_SUMS)


def bounds(traced: fx.GraphModule, largest_input: float) -> dict[fx.Node, float]:
    """What the absolute outputs of each node stay below; infinity where that is not known, or above `LARGEST`.

    |w * x + b| is at most max|x| times the sum of |w|, plus |b|; a sum of two is at most that of their bounds. Such
    bounds multiply from layer to layer, and are of use where a ReLU6 begins anew.

    Args:
        traced: normalised images -> logits, from `fold.fold_batch_norms`.
        largest_input: of the absolute normalised values.
    """
    modules = dict(traced.named_modules())
    found: dict[fx.Node, float] = {}
    for node in traced.graph.nodes:
        bound = largest_input if node.op == "placeholder" else _bound(node, modules, found)
        found[node] = bound if bound < LARGEST else math.inf  # of NaN too
    return found


def may_hide_nan(traced: fx.GraphModule, largest_input: float) -> list[fx.Node]:
    """The nodes that may get a NaN, for all that is known, and may give out a number, in the order of the network.

    Another engine's ReLU makes 0 of it. What sums its inputs keeps it, as the logits do.

    Args:
        traced: normalised images -> logits, from `fold.fold_batch_norms`.
        largest_input: of the absolute normalised values.
    """
    modules = dict(traced.named_modules())
    unknown = [node for node, bound in bounds(traced, largest_input).items() if bound == math.inf]
    return [node for node in unknown if node.op != "output" and _what(node, modules) not in _KEEP_NAN]


def _what(node: fx.Node, modules: Mapping[str, nn.Module]) -> Any:
    """The type of its module, or its function."""
    return type(modules[str(node.target)]) if node.op == "call_module" else node.target


def _bound(node: fx.Node, modules: Mapping[str, nn.Module], found: Mapping[fx.Node, float]) -> float:
    module = modules[str(node.target)] if node.op == "call_module" else None
    what = _what(node, modules)
    inputs = [found[arg] if isinstance(arg, fx.Node) else math.inf for arg in node.args] or [math.inf]
    if module and (module._forward_hooks or module._forward_pre_hooks or getattr(module, "divisor_override", None)):
        return math.inf
    if isinstance(module, nn.Conv2d | SameConvolution | nn.Linear):
        if what not in _WEIGHTED:  # a subclass may compute anything
            return math.inf
        weight = module.weight.detach().double()
        bias = 0.0 if module.bias is None else float(module.bias.detach().double().abs().max())
        return inputs[0] * float(weight.abs().flatten(1).sum(1).max()) + bias
    if what in _NO_LARGER:
        return inputs[0]
    if what in _AT_MOST_6:
        return min(inputs[0], 6.0) if inputs[0] < LARGEST else math.inf  # NaN is not clipped
    return sum(inputs) if what in _SUMS and not node.kwargs else math.inf  # torch.add may multiply one of the two
