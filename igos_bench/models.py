"""A classifier: a network of timm's or torchvision's with its weights, its layers and a faster equal.

Images go in as (N, 3, 224, 224) in [0, 1]; nothing outside `network.Normalised` knows a network's mean and std.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import timm
import torch
import torchvision
from torch import Tensor, nn

from .config import ModelConfig, Precision
from .errors import UserError
from .fast import speed_up
from .fetch import from_huggingface, from_package, from_url, from_user
from .network import Normalised, check_layers, last_relus, suggestion, trial
from .perturb import IMAGENET_MEAN, IMAGENET_STD
from .weights import (
    assign_by_name,
    assign_in_order,
    check_hash,
    hash_weights,
    published_hash,
    tensors_alone,
    unreadable,
)

__all__ = ["Classifier", "Normalised", "hash_weights", "load_classifier"]


@dataclass(frozen=True)
class Classifier:
    """A network that is ready to be explained: in eval mode, no parameter requires a gradient.

    Attributes:
        name: the model's name in tables and paths.
        network: images (N, 3, 224, 224) in [0, 1] -> logits (N, K), as the library built it: for methods with rules of
            their own for its layers.
        fast_network: the same function with batch norm folded into the convolutions, in channels_last and, on a CPU, in
            oneDNN's calls; see `fast`. Where nothing of that could be done it is `network`, in channels_last.
            Its gradients agree as far as float32 allows: an activation that rounding moves over the kink of a ReLU
            changes either network's gradient by some 1e-3 of its norm, seen from float64.
        folded: whether `fast_network` is another network than `network`.
        weights_sha256: of the values; see `hash_weights`.
        layers: method -> resolution -> name of the module, inside the body, whose output has that height and width, as
            the configuration has it.
        last_relus: resolution -> name, likewise, of the module that gives out the last ReLU or ReLU6 there; largest
            resolution first.
        weights_file: where the weights came from; None for random ones.
        weights_file_sha256: of that file's bytes.
        precision: what `fast_network` is made for.
    """

    name: str
    network: Normalised
    fast_network: Normalised
    folded: bool
    weights_sha256: str
    layers: Mapping[str, Mapping[int, str]]
    last_relus: Mapping[int, str]
    weights_file: str | None = None
    weights_file_sha256: str | None = None
    precision: Precision = Precision.fp32

    @cached_property
    def float32_network(self) -> Normalised:
        """`fast_network` in float32: another one where that is made for bf16, made when it is asked for first.

        On a CPU alone: elsewhere the weights are float32 in either, which autocast rounds in each call.
        """
        device = self.network.mean.device
        is_rounded = self.precision is Precision.bf16 and device.type == "cpu" and self.fast_network is not self.network
        with torch.inference_mode(False):  # a pass without a gradient asks first, and its gradient is checked
            return speed_up(self.network, device)[0] if is_rounded else self.fast_network

    def in_float32(self, images: Tensor) -> Tensor:
        """Logits by `float32_network`."""
        logits: Tensor = self.float32_network(images)
        return logits

    def module(self, layer: str) -> nn.Module:
        """The module of that name in `network`, to be hooked; names are those of `layers` and `last_relus`."""
        return self.network.body.get_submodule(layer)

    def layer_names_for(self, method: str) -> dict[int, str]:
        """Resolution -> the name of the module that the method reads there, largest resolution first.

        They are those that the configuration names for the method, and no others; if it names none, the last ReLUs.
        """
        layers = self.layers.get(method) or self.last_relus
        return {resolution: layers[resolution] for resolution in sorted(layers, reverse=True)}

    def layers_for(self, method: str) -> dict[int, nn.Module]:
        """Those modules of `network`."""
        return {resolution: self.module(name) for resolution, name in self.layer_names_for(method).items()}


def load_classifier(
    config: ModelConfig, device: torch.device, *, precision: Precision = Precision.fp32, seed: int = 0
) -> Classifier:
    """Builds the network, gives it its weights and checks that it classifies 224 x 224 images.

    Args:
        config: which network, which weights.
        device: where both networks are put.
        precision: what the fast network is made for.
        seed: of random weights (`config.weights` null); the global random state is left as it was.

    Raises:
        UserError: an unknown library, architecture or layer; weights that are missing, damaged, cannot be fetched or do
            not fit; a network that is not a classifier of such images.
    """
    library = _library(config)
    # Only the CPU's generator is forked and seeded: torch.manual_seed would reach the GPUs' too.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        body, file, file_sha256 = _load_body(config, library)
    mean = _three_numbers("mean", config.mean or library.mean(body))
    std = _three_numbers("std", config.std or library.std(body))
    network = Normalised(body, mean, std).eval().requires_grad_(False)

    calls = trial(config, network)
    check_layers(config, body, calls)
    relus = last_relus(calls)
    named = {name for layers in (relus, *config.layers.values()) for name in layers.values()}
    fast_network, folded = speed_up(network, device, precision, named)
    return Classifier(
        name=config.name,
        network=network.to(device),
        fast_network=fast_network,
        folded=folded,
        weights_sha256=hash_weights(body),
        layers={method: dict(layers) for method, layers in config.layers.items()},
        last_relus=relus,
        weights_file=str(file) if file else None,
        weights_file_sha256=file_sha256,
        precision=precision,
    )


def _load_body(config: ModelConfig, library: _Library) -> tuple[nn.Module, Path | None, str | None]:
    """The network, the file of its weights and that file's sha256."""
    if config.weights is None:
        if config.sha256 is not None:
            raise UserError("model.sha256 is that of a file, but model.weights=null has none: leave one of them out")
        return library.create(config.architecture, None), None, None

    if config.weights != "pretrained":
        file = from_user(config.weights)
    else:
        file = from_package(config.package) if config.package else library.find(config.architecture)
    expected, where = config.sha256, "model.sha256"
    if expected is None and config.weights == "pretrained":
        expected, where = published_hash(file), "its name"
    sha256 = check_hash(file, expected, where)

    if config.weights == "pretrained" and not config.package:
        try:
            with tensors_alone():
                return library.create(config.architecture, file), file, sha256
        except Exception as error:  # whatever the unpickler meets in a damaged file
            raise unreadable(file, error) from error
    body = library.create(config.architecture, None)
    assign = assign_in_order if config.weights == "pretrained" else assign_by_name
    assign(body, file, config.architecture)
    return body, file, sha256


def _three_numbers(key: str, values: Sequence[float]) -> list[float]:
    numbers = [float(value) for value in values]
    if len(numbers) != 3 or (key == "std" and min(numbers) <= 0):
        raise UserError(f"model.{key}={numbers}: expected three numbers, one a channel, positive ones for std.")
    return numbers


# The two libraries.


class _Library(Protocol):
    """What timm and torchvision do differently."""

    def names(self) -> Iterable[str]:
        """Every architecture."""

    def create(self, architecture: str, file: Path | None) -> nn.Module:
        """With random weights, or the library's own pretrained ones from `file`, which it may rename or reshape."""

    def find(self, architecture: str) -> Path:
        """The file of the pretrained weights: in the library's cache, else fetched into it."""

    def mean(self, body: nn.Module) -> Sequence[float]:
        """Of the normalisation."""

    def std(self, body: nn.Module) -> Sequence[float]:
        """Of the normalisation."""


class _Timm:
    def names(self) -> Iterable[str]:
        names: list[str] = [*timm.list_models(), *timm.list_pretrained()]
        return names

    def create(self, architecture: str, file: Path | None) -> nn.Module:
        overlay = {"file": str(file)} if file else None
        network: nn.Module = timm.create_model(
            architecture, pretrained=file is not None, pretrained_cfg_overlay=overlay
        )
        return network

    def find(self, architecture: str) -> Path:
        pretrained = timm.models.get_pretrained_cfg(architecture)
        if pretrained and pretrained.hf_hub_id:
            names = [pretrained.hf_hub_filename] if pretrained.hf_hub_filename else ["model.safetensors"]
            return from_huggingface(architecture, pretrained.hf_hub_id, [*names, "pytorch_model.bin"])
        if pretrained and isinstance(pretrained.url, str) and pretrained.url:
            return from_url(architecture, pretrained.url)
        raise _no_pretrained("timm", architecture)

    def mean(self, body: nn.Module) -> Sequence[float]:
        return body.pretrained_cfg["mean"]  # type: ignore[index,return-value]

    def std(self, body: nn.Module) -> Sequence[float]:
        return body.pretrained_cfg["std"]  # type: ignore[index,return-value]


class _Torchvision:
    def names(self) -> Iterable[str]:
        # Of this module alone: without detection, segmentation and video.
        names: list[str] = torchvision.models.list_models(module=torchvision.models)
        return names

    def create(self, architecture: str, file: Path | None) -> nn.Module:
        # With weights given the builder reads `file` again from the cache, and renames old entries.
        weights = self._weights(architecture) if file else None
        network: nn.Module = torchvision.models.get_model(architecture, weights=weights)
        if hasattr(network, "transform_input"):
            # GoogLeNet and Inception were trained with other statistics and convert from ImageNet's themselves.
            network.transform_input = True  # type: ignore[assignment]
        return network

    def find(self, architecture: str) -> Path:
        return from_url(architecture, self._weights(architecture).url)

    def mean(self, body: nn.Module) -> Sequence[float]:
        return IMAGENET_MEAN

    def std(self, body: nn.Module) -> Sequence[float]:
        return IMAGENET_STD

    def _weights(self, architecture: str) -> torchvision.models.WeightsEnum:
        """IMAGENET1K_V1, which the papers used, where there is one: torchvision's default is often a later training."""
        weights = torchvision.models.get_model_weights(architecture)
        chosen = weights.__members__.get("IMAGENET1K_V1") or getattr(weights, "DEFAULT", None)
        if chosen is None:
            raise _no_pretrained("torchvision", architecture)
        return chosen


_LIBRARIES: dict[str, _Library] = {"timm": _Timm(), "torchvision": _Torchvision()}


def _library(config: ModelConfig) -> _Library:
    if config.library not in _LIBRARIES:
        raise UserError(f"model.library={config.library}: the libraries are {' and '.join(_LIBRARIES)}.")
    library = _LIBRARIES[config.library]
    names = list(library.names())
    if config.architecture not in names:
        raise UserError(
            f"model.architecture={config.architecture}: {config.library} has no classifier of that name."
            f"{suggestion(config.architecture, names)}"
        )
    return library


def _no_pretrained(library: str, architecture: str) -> UserError:
    return UserError(
        f"model.weights=pretrained: {library} has no pretrained weights for {architecture}. "
        "Give a file, model.weights=FILE, or null for random weights."
    )
