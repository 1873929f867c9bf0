"""Puts oneDNN's operators in the place of a traced network's convolutions, each with the ReLU that alone reads it."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn import functional as F

from .bounds import bounds
from .fold import ReLU6, SameConvolution
from .onednn import RELU, RELU6, FusedConvolution, Rectifier

_MODULES: dict[type[nn.Module], Rectifier] = {nn.ReLU: RELU, nn.ReLU6: RELU6, ReLU6: RELU6}
_FUNCTIONS = {torch.relu: RELU, F.relu: RELU, F.relu6: RELU6}


def fuse(
    traced: fx.GraphModule, dtype: torch.dtype, in_float32: Collection[fx.Node] = (), *, largest_input: float
) -> int:
    """Replaces every convolution of a traced network, with the ReLU that alone reads it; returns how many.

    A ReLU6 stays by itself unless all that comes to it is finite for inputs up to `largest_input`, see `onednn.RELU6`.
    With bfloat16 the convolutions of `in_float32` stay in that, and the linear layers' weights become bfloat16 too, so
    that autocast has nothing to convert in each call.
    """
    largest = bounds(traced, largest_input)
    graph = traced.graph
    modules = dict(traced.named_modules())
    for node in list(graph.nodes):  # what stands between a convolution and its ReLU and does nothing
        if node.op == "call_module" and isinstance(modules[str(node.target)], nn.Identity):
            _take_over(cast(fx.Node, node.args[0]), node)
    convolutions = [node for node in graph.nodes if node.op == "call_module" and _is_plain(modules[str(node.target)])]
    rectifiers = {node: _absorb_rectifier(node, modules, largest[node]) for node in convolutions}
    for node in convolutions:
        fused = FusedConvolution(
            cast(nn.Conv2d, modules[str(node.target)]),
            rectifiers[node],
            owns_gradient=len(node.users) == 1 and next(iter(node.users)) in rectifiers,
            dtype=torch.float32 if node in in_float32 else dtype,
        )
        name = f"fused_{node.name}"
        traced.add_submodule(name, fused)
        node.target = name
    if dtype is not torch.float32:
        for module in modules.values():
            if isinstance(module, nn.Linear):
                module.to(dtype)
    traced.delete_all_unused_submodules()
    graph.lint()
    traced.recompile()
    return len(convolutions)


def _is_plain(module: nn.Module) -> bool:
    if type(module) is nn.Conv2d:
        return module.dilation == (1, 1) and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return isinstance(module, SameConvolution)


def _absorb_rectifier(node: fx.Node, modules: dict[str, nn.Module], largest: float) -> Rectifier | None:
    """Takes the ReLU that alone reads the node out of the graph."""
    if len(node.users) != 1:
        return None
    (reader,) = node.users
    if reader.op == "call_module":
        rectifier = _MODULES.get(type(modules[str(reader.target)]))
    elif reader.op == "call_function":
        rectifier = _FUNCTIONS.get(cast(Any, reader.target))
    else:
        rectifier = None
    if rectifier is RELU6 and math.isinf(largest):
        return None
    if rectifier:
        _take_over(node, reader)
    return rectifier


def _take_over(node: fx.Node, reader: fx.Node) -> None:
    """Takes a reader out of the graph: what it gave out, and was the output of, the node is from now on."""
    node.meta["layers"] = reader.meta.get("layers", set())
    reader.replace_all_uses_with(node)
    node.graph.erase_node(reader)
