"""The network behind its normalisation: a trial run, and its layers by resolution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import INPUT_SIZE, ModelConfig
from .errors import UserError, first_line


class Normalised(nn.Module):
    """The library's network behind its normalisation, so that it reads images in [0, 1].

    Names of layers are relative to `body`.

    Args:
        body: normalised images (N, 3, 224, 224) -> logits (N, K).
        mean: of the three channels, for images in [0, 1].
        std: likewise, positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.body = body
        # Not persistent: they come from the configuration, and a state dict holds the body's entries alone.
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, 224, 224) in [0, 1] -> logits (N, K)."""
        logits: Tensor = self.body(self.normalise(images))
        return logits

    def normalise(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> what the body was trained on."""
        return (images - self.mean) / self.std


# What it does with one image.


class Call(NamedTuple):
    """One run of a module in the trial forward pass."""

    name: str
    module: nn.Module
    output: object


def trial(config: ModelConfig, network: Normalised) -> list[Call]:
    """Runs a black image through, checks the logits, and returns every module's run, in the order they ended."""
    calls: list[Call] = []

    def remember(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(lambda module, _, output: calls.append(Call(name, module, output)))

    handles = [remember(name, module) for name, module in network.body.named_modules() if name]
    try:
        with torch.inference_mode():
            logits = network(torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE))
    except Exception as error:  # of any network's own forward
        raise _not_a_classifier(config, f"it failed with {type(error).__name__}: {first_line(error)}") from error
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor):
        raise _not_a_classifier(config, f"it returned a {type(logits).__name__}")
    if logits.ndim != 2 or logits.shape[0] != 1 or logits.shape[1] < 2:
        raise _not_a_classifier(config, f"its output has shape {tuple(logits.shape)}")
    if not logits.isfinite().all():
        raise UserError(f"{config.name}: the logits of a black image are not finite. Check model.weights.")
    return calls


def _not_a_classifier(config: ModelConfig, found: str) -> UserError:
    return UserError(
        f"model.architecture={config.architecture} ({config.library}) is no classifier of {INPUT_SIZE} x {INPUT_SIZE} "
        f"images: asked for logits (1, K >= 2) from one image, {found}. Choose another architecture."
    )


def _resolution(output: object) -> int | None:
    """Of a square map (N, C, H, W); None for anything else."""
    is_map = isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1
    return int(output.shape[2]) if is_map and isinstance(output, Tensor) else None


def last_relus(calls: Sequence[Call]) -> dict[int, str]:
    """Resolution -> the module that gives out the last ReLU or ReLU6 there to which a name can be put, largest first.

    A module that runs more than once, as the ReLU of torchvision's ResNet blocks, is no name for one output: then it is
    the innermost module that runs once and returns that very tensor, such as the block.
    """
    runs = Counter(call.name for call in calls)
    layers: dict[int, str] = {}
    for position, call in enumerate(calls):
        resolution = _resolution(call.output)
        if resolution is None or not isinstance(call.module, nn.ReLU | nn.ReLU6):
            continue
        for later in calls[position:]:
            if later.output is call.output and runs[later.name] == 1:
                layers[resolution] = later.name
                break
    return dict(sorted(layers.items(), reverse=True))


def check_layers(config: ModelConfig, body: nn.Module, calls: Sequence[Call]) -> None:
    """Raises UserError unless each of the configuration's layers runs once and has the output it is named for."""
    named = [
        (f"model.layers.{method}={{{resolution}: {layer}}}", resolution, layer)
        for method, layers in config.layers.items()
        for resolution, layer in layers.items()
    ]
    for key, resolution, layer in named:
        outputs = [call.output for call in calls if call.name == layer]
        if not outputs:
            raise UserError(
                f"{key}: {config.architecture} runs no module of that name."
                f"{suggestion(layer, [name for name, _ in body.named_modules() if name])}"
            )
        if len(outputs) > 1:
            raise UserError(
                f"{key}: it runs {len(outputs)} times for one image, so its output is ambiguous. "
                "Name the block around it."
            )
        if _resolution(outputs[0]) != resolution:
            found = tuple(outputs[0].shape) if isinstance(outputs[0], Tensor) else type(outputs[0]).__name__
            raise UserError(
                f"{key}: expected an output of {resolution} x {resolution}, found {found}. "
                "Name a layer of that resolution."
            )


def suggestion(name: str, names: Iterable[str]) -> str:
    """A sentence with the near misses, after a space; empty where there are none."""
    near = get_close_matches(name, list(names), n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""
