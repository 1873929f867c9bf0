"""The typed schema of a run, and the checks that need no network.

`conf/` holds the values, this module their types and meanings. A key that is not here is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

INPUT_SIZE = 224
"""Pixels a side of what every network sees."""

CPU_CHUNK = 10
"""Images of a chunk on a CPU, where nothing else is asked for; elsewhere there are more."""


class Device(StrEnum):
    """Where the network runs; `auto` takes CUDA, then MPS, then the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Precision(StrEnum):
    """Of the network alone; masks, sums, comparisons and curves are always float32.

    `tf32`: float32 whose products a CUDA device may round to TensorFloat-32, ten bits of mantissa.
    """

    fp32 = "fp32"
    bf16 = "bf16"
    tf32 = "tf32"


class Forward(StrEnum):
    """What runs passes that need no gradient: torch, like all others, or OpenVINO, on a CPU."""

    torch = "torch"
    openvino = "openvino"


class Timing(StrEnum):
    """What is timed: a chunk, divided by its images, or every image alone, as papers report it."""

    chunk = "chunk"
    single = "single"


class Preprocessing(StrEnum):
    """How an image becomes 224 x 224: half-pixel bilinear without or with antialiasing."""

    plain = "plain"
    antialias = "antialias"


@dataclass
class DataConfig:
    """Which images.

    `root`: the folder, or ImageNet's tar; `labels`: ImageNet's devkit or a CSV, null looks beside the images; `list`: a
    file of image ids, one a line, instead of all in their seeded order; `limit`: the first so many.
    """

    name: str = "sample"
    layout: str = "sample"
    root: str | None = None
    labels: str | None = None
    list: str | None = None
    limit: int | None = None
    seed: int = 0
    workers: int = 2
    max_pixels: int = 100_000_000


@dataclass
class ModelConfig:
    """Which classifier.

    `library` and `architecture` name the network; `weights` is `pretrained`, a file (.pth, .pt, .safetensors) or null
    (seeded random, for tests); `sha256` is what their file must have, in full or its first digits, 8 or more; `package`
    is the Python package that carries the pretrained weights, where one does;
    `mean` and `std` override the library's own; `layers` names, for a method that reads layers, the module whose output
    has a given resolution, method -> resolution -> name. A method that it leaves out reads the last ReLUs. `top1`
    is the published accuracy in percent, for `check-data`.
    """

    name: str = "efficientnet_lite0"
    library: str = "timm"
    architecture: str = "tf_efficientnet_lite0"
    weights: str | None = "pretrained"
    sha256: str | None = None
    package: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    layers: dict[str, dict[int, str]] = field(default_factory=dict)
    top1: float | None = None


@dataclass
class BaselineConfig:
    """What an image looks like where it is deleted; see `perturb.baseline`."""

    kind: str = "blur"
    kernel_size: int = 51
    sigma: float = 50.0


@dataclass
class ProtocolConfig:
    """Every choice of the deletion and insertion metric; see `metrics`."""

    name: str = "paper"
    version: int = 1
    ranking: str = "elements"
    n_steps: int = 200
    spacing: str = "even"
    area: str = "trapezoid"
    deletion_baseline: BaselineConfig = field(default_factory=BaselineConfig)
    insertion_baseline: BaselineConfig = field(default_factory=BaselineConfig)


@dataclass
class EvaluateConfig:
    """How the network is run; none of it is part of a run's key."""

    batch_size: int | str | None = None
    forward: Forward | None = None


@dataclass
class RunConfig:
    """A run: one method at one resolution on one model and one set of images under one protocol.

    `maps`: a folder of saliency maps that were made elsewhere, and `name`, what the table calls them; they stand for
    `method` and `resolution`.

    `lease_seconds`: several processes may share a run directory, each chunk being computed by one of them. One that has
    given no sign of life for so long loses its chunk to another; what it still writes of it is dropped. A process that
    has ended on the same machine loses it at once. Take at least 120 on NFS, whose clients remember for up to a minute.

    `shard`: `i/n`, every n-th chunk alone, or `auto`; see `shard`.
    """

    method: dict[str, Any] = field(default_factory=dict)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    resolution: int = 28
    maps: str | None = None
    name: str | None = None
    preprocessing: Preprocessing = Preprocessing.plain
    device: Device = Device.auto
    precision: Precision = Precision.fp32
    seed: int = 0
    chunk_size: int | None = None
    timing: Timing = Timing.chunk
    lease_seconds: float = 300.0
    shard: str | None = None
    results_dir: str = "results"


def plain(value: Any) -> Any:
    """A value as JSON has it: keys as text, tuples as lists, enums by value."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.value if hasattr(value, "value") else value


def leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values below nested dictionaries and lists, empty ones included."""
    items = content.items() if isinstance(content, Mapping) else enumerate(content)
    for key, value in items:
        name = f"{prefix}{key}"
        if isinstance(value, (Mapping, list)):
            yield name, type(value)()
            yield from leaves(value, f"{name}.")
        else:
            yield name, value
