"""The same again: what must give the same bytes, and what may round otherwise but not by more than is said.

Every registered method through the runner, on a small network with batch norms to fold. Each start has other global
seeds than the one before, so that the same bytes also say that nobody draws from the global generators.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from every_method import ITERATIVE, SHORT
from PIL import Image
from torch import nn
from toys import toy_image

from igos_bench.config import RunConfig
from igos_bench.formats import COLUMNS, read_csv
from igos_bench.methods import get_method, method_names
from igos_bench.overrides import compose_config
from igos_bench.prepare import prepare
from igos_bench.runner import execute

IMAGES, CHUNK = 5, 2
GAIN = 200.0  # of the logits: the images get 0.2 for their class, up to 0.9 in between


@timm.models.register_model
def repeatability_toy(**_options: Any) -> nn.Module:
    """A classifier of a thousandth of a second, with ReLUs at 56, 28 and 14."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10, bias=False),
    )  # fmt: skip
    with torch.no_grad():
        network[0].weight -= network[0].weight.mean(
            (2, 3), keepdim=True
        )  # it sees edges, of which a blurred image has few
        network[-1].weight *= GAIN
    network.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}  # type: ignore[assignment]
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the images in it, and the runs."""
    root = tmp_path_factory.mktemp("repeatability")
    (root / "images").mkdir()
    for i in range(IMAGES):
        pixels = toy_image(i, size=64 + i).mul(255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def base(folder: Path) -> RunConfig:
    return compose_config(
        [
            *("model=timm", "model.architecture=repeatability_toy", "model.weights=null", "device=cpu"),
            *("data=folder", f"data.root={folder / 'images'}", "protocol.n_steps=6", f"chunk_size={CHUNK}"),
        ]
    )


def global_generators() -> dict[str, str]:
    return {
        "torch": repr(torch.get_rng_state().tolist()),
        "numpy": repr(np.random.get_state()),
        "random": repr(random.getstate()),
    }


@contextmanager
def global_generators_untouched(seed: int) -> Iterator[None]:
    """Whoever draws from them gets other numbers than under another seed, and is found out."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    before = global_generators()
    yield
    after = global_generators()
    assert [name for name in before if before[name] != after[name]] == [], "somebody drew from these global generators"


_seeds = count()


def start(base: RunConfig, method: str, results: Path, changes: dict[str, Any]) -> None:
    """Run a method, with these keys of the configuration changed."""
    config = copy.deepcopy(base)
    config.method = {"name": method, **SHORT.get(method, {})}
    resolutions = get_method(method, dict(SHORT.get(method, {}))).resolutions
    config.resolution = 14 if resolutions == "from the model" or 14 in resolutions else resolutions[0]
    config.results_dir = str(results)
    for key, value in changes.items():
        *path, last = key.split(".")
        owner: Any = config
        for part in path:
            owner = getattr(owner, part)
        assert hasattr(owner, last), key
        setattr(owner, last, value)
    with global_generators_untouched(next(_seeds)):
        execute(prepare(config), lambda _done, _rows: None)


def lose_the_first_chunk(results: Path) -> None:
    for path in results.glob("runs/*/*/*/*/*/**/000000.*"):
        path.unlink()


def arrays(results: Path) -> dict[Path, bytes]:
    """Maps and curves; the keys of the run and of its protocol are part of the paths."""
    return {path.relative_to(results): path.read_bytes() for path in results.glob("runs/**/*.npz")}


def rows(results: Path) -> list[dict[str, str]]:
    (path,) = results.glob("runs/*/*/*/*/*/*/records.csv")
    found = read_csv(path)
    assert found is not None
    return [{key: row[key] for key in COLUMNS if not key.endswith("_seconds")} for row in found]


@pytest.fixture(scope="module")
def reference(folder: Path, base: RunConfig) -> Callable[[str], Path]:
    """The results of a method, uninterrupted and with nothing changed."""

    def find(method: str) -> Path:
        results = folder / method
        if not results.exists():
            start(base, method, results, {})
            assert len(arrays(results)) == 2 * -(-IMAGES // CHUNK)
            assert [row["status"] for row in rows(results)] == ["ok"] * IMAGES
        return results

    return find


every_method = pytest.mark.parametrize("method", method_names())

# Each a series of starts on one results folder: the keys that they change, or what happens between them.
SAME_BYTES: dict[str, list[dict[str, Any] | Callable[[Path], None]]] = {
    "again": [{}],
    "another number of decoding workers": [{"data.workers": 5}],
    "resumed, also within a chunk": [{"data.limit": 1}, {"data.limit": 3}, {}],
    "in shards, first of another division": [{"shard": "2/3"}, {"shard": "1/2"}, {"shard": "2/2"}],
    "chunks in another order": [{}, lose_the_first_chunk, {}],
}


@every_method
@pytest.mark.parametrize("starts", SAME_BYTES.values(), ids=list(SAME_BYTES))
def test_the_same_bytes(
    method: str,
    starts: list[dict[str, Any] | Callable[[Path], None]],
    base: RunConfig,
    reference: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    expected = reference(method)
    for step in starts:
        if callable(step):
            step(tmp_path)
        else:
            start(base, method, tmp_path, step)
    assert arrays(tmp_path) == arrays(expected)
    assert rows(tmp_path) == rows(expected)


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


ROUNDED_OTHERWISE: dict[str, tuple[int, dict[str, Any]]] = {  # threads, and keys that are changed
    "micro-batches of 1": (1, {"evaluate.batch_size": 1}),
    "micro-batches of 3": (1, {"evaluate.batch_size": 3}),
    "2 threads": (2, {}),
}


@every_method
@pytest.mark.parametrize(("number", "changes"), ROUNDED_OTHERWISE.values(), ids=list(ROUNDED_OTHERWISE))
def test_the_same_rows_and_nearly_the_same_areas(
    method: str,
    number: int,
    changes: dict[str, Any],
    base: RunConfig,
    reference: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    with threads(1):
        expected = rows(reference(method))
    with threads(number):
        start(base, method, tmp_path, changes)
    found = rows(tmp_path)
    for key in ("image_id", "label", "target", "status", "error"):
        assert [row[key] for row in found] == [row[key] for row in expected]
    for key in ("deletion_auc", "insertion_auc"):
        shifts = np.array([float(a[key]) - float(b[key]) for a, b in zip(found, expected, strict=True)])
        if method in ITERATIVE:
            assert abs(shifts.mean()) < 0.005
        else:
            assert np.abs(shifts).max() < 1e-3


def test_the_toy_tells_images_and_places_apart(reference: Callable[[str], Path]) -> None:
    """Otherwise all of the above would say nothing."""
    found = rows(reference("integrated_gradients"))
    assert len({row["target"] for row in found}) > 1
    assert len({row["deletion_auc"] for row in found}) == IMAGES
    assert all(float(row["insertion_auc"]) - float(row["deletion_auc"]) > 0.5 for row in found)
