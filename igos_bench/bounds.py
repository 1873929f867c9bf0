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

_NO_LARGER = (nn.Identity, nn.Dropout, nn.ReLU, nn.MaxPool2d, F.relu, torch.relu)
_AT_MOST_6 = (nn.ReLU6, ReLU6, F.relu6)
_SUMS = (operator.add, operator.iadd, torch.add)


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


def _bound(node: fx.Node, modules: Mapping[str, nn.Module], found: Mapping[fx.Node, float]) -> float:
    module = modules[str(node.target)] if node.op == "call_module" else None
    what: Any = type(module) if module else node.target
    inputs = [found[arg] if isinstance(arg, fx.Node) else math.inf for arg in node.args]
    if isinstance(module, nn.Conv2d | SameConvolution):
        weight = module.weight.double()
        bias = 0.0 if module.bias is None else float(module.bias.double().abs().max())
        return inputs[0] * float(weight.abs().flatten(1).sum(1).max()) + bias
    if what in _NO_LARGER:
        return inputs[0]
    if what in _AT_MOST_6:
        return min(inputs[0], 6.0) if inputs[0] < LARGEST else math.inf  # NaN is not clipped
    return sum(inputs) if what in _SUMS and not node.kwargs else math.inf  # torch.add may multiply one of the two
