"""Weights: how a file of them is checked, read and given to a network, and their hash. `fetch` finds the file."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from .errors import UserError, first_line

# Whether they are the right ones.


def published_hash(file: Path) -> str | None:
    """The sha256, or its first digits, that a library gave a file of weights as its name; None where it did not.

    torch's end in it, `vgg19-dcbb9e9d.pth`; in Hugging Face's cache it is the name of what the file is a link to.
    """
    found = re.search(r"-([0-9a-f]{8,64})\.", file.name) or re.fullmatch("([0-9a-f]{64})", file.resolve().name)
    return found and found[1]


def check_hash(file: Path, expected: str | None, where: str) -> str:
    """The sha256 of the file's bytes, before anything reads it; raises UserError where it is not the expected one.

    Args:
        file: Of weights.
        expected: All of it or its first digits, None where nothing is known.
        where: It stands, for the message.
    """
    found = hash_file(file)
    if expected is not None and not re.fullmatch("[0-9a-f]{8,64}", expected.lower()):
        raise UserError(f"{where}={expected}: write the sha256 in hexadecimal, all of it or its first 8 digits or more")
    if expected is not None and not found.startswith(expected.lower()):
        raise UserError(
            f"{file} has the sha256 {found}, but {where} says {expected}: it is damaged or not what it is taken for. "
            "Remove it and fetch it again."
        )
    return found


# How a network gets them.


@contextmanager
def tensors_alone() -> Iterator[None]:
    """Every torch.load in it, a library's too, reads plain tensors and runs no code, whatever it is told to do.

    torchvision, and torch.hub for it, would run what a pickle in the cache says.
    """
    before = {name: os.environ.pop(name, None) for name in (_SAFE, _UNSAFE)}
    os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        del os.environ[_SAFE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


_SAFE, _UNSAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # torch's own switches


def _read(file: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file or one that torch saved; code in a pickle is never run."""
    try:
        if file.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(file)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickle's protocols: whether it can be read is said below
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
