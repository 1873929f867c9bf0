"""What every registered method promises, whoever wrote it: see `Method.__call__` and CONTRIBUTING.md.

A new method is tested by being registered; with defaults that take long it also wants a line in `every_method.SHORT`.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import literal
import numpy as np
import pytest
import torch
from every_method import ITERATIVE, SHORT
from torch import Tensor, nn
from torch.nn import functional as F
from toys import toy_image

from igos_bench.evaluate import Evaluator
from igos_bench.methods import get_method, method_names

FROM_THE_MODEL = (224, 112, 28, 14)
COUNT = 3
MICRO_BATCH = 2
GAIN = 2000.0  # of the toy network: the images get some 0.7 for their class, the blurred ones half of it


class BrokenError(Exception):
    """Of a network in the middle of its work."""


@cache
def toy_network() -> tuple[nn.Sequential, dict[int, int]]:
    """Images (N,3,224,224) -> logits (N,5), and the place of the ReLU at each resolution.

    Every kind of layer that the methods have rules for but the residual sum. The first kernels sum to zero, so that it
    sees edges, of which a blurred image has few.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(4),
            nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Dropout(), nn.Linear(32, 5, bias=False),
        )  # fmt: skip
    with torch.no_grad():
        network[0].weight -= network[0].weight.mean((2, 3), keepdim=True)
        network[15].weight *= GAIN
    return network.eval().requires_grad_(False), dict(zip(FROM_THE_MODEL, (1, 4, 8, 11), strict=True))


@cache
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Images, baselines, targets."""
    images = torch.stack([toy_image(seed, 224) for seed in range(COUNT)])
    baselines = F.avg_pool2d(images, 31, stride=1, padding=15, count_include_pad=False)
    likely = toy_network()[0](images).argsort(1, descending=True)
    # Neighbours have different classes, so that one taken for the other's shows; the third likely one is flat at 0.
    return images, baselines, likely[range(COUNT), [0, 1, 0]]


class Setting:
    """A method at a resolution on the toy network, and everything that it could leave changed."""

    def __init__(self, name: str, resolution: int, dtype: torch.dtype = torch.float32) -> None:
        self.name, self.resolution, self.dtype = name, resolution, dtype
        self.method = get_method(name, dict(SHORT.get(name, {})))
        shared, places = toy_network()
        # Two networks, as batch norm folding makes them, so that one in the place of the other would be found out.
        self.network = copy.deepcopy(shared).to(dtype)
        self.fast_network = copy.deepcopy(shared).to(dtype, memory_format=torch.channels_last)
        layers = {size: self.network[place] for size, place in places.items()}
        self.evaluate = Evaluator(self.network, self.fast_network, MICRO_BATCH, layers=layers)
        self.images, self.baselines = (tensor.to(dtype, copy=True) for tensor in inputs()[:2])
        self.targets = inputs()[2].clone()

    def explain(self, *chosen: int) -> Tensor:
        """Maps of these images, of all by default, each with the draws that belong to it."""
        which = list(chosen or range(COUNT))
        return self.method(
            self.evaluate,
            self.images[which],
            self.targets[which],
            baselines=self.baselines[which],
            resolution=self.resolution,
            generators=[literal.image_generator(0, self.name, f"image{i}") for i in which],
            run_generator=torch.Generator().manual_seed(0),
        )

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        for kind, network in (("network", self.network), ("fast_network", self.fast_network)):
            for name, module in network.named_modules():
                yield f"{kind}.{name}", module

    def state(self) -> dict[str, object]:
        """Of the process and of the networks: what a method has to leave as it was."""
        found: dict[str, object] = {
            "torch's random state": digest(torch.get_rng_state()),
            "numpy's random state": repr(np.random.get_state()),
            "Python's random state": random.getstate(),
            "grad mode": torch.is_grad_enabled(),
            "inference mode": torch.is_inference_mode_enabled(),
            "autocast": torch.is_autocast_enabled("cpu"),
            "default type": torch.get_default_dtype(),
            "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
            "threads": torch.get_num_threads(),
            "function modes": len(torch.overrides._get_current_function_mode_stack()),
            "images": digest(self.images),
            "baselines": digest(self.baselines),
            "targets": digest(self.targets),
        }
        for name, hooks in vars(torch.nn.modules.module).items():
            if name.startswith("_global_") and name.endswith("hooks"):
                found[name] = list(hooks)
        for path, module in self.modules():
            found[path] = type(module)
            found[f"{path} training"] = module.training
            found[f"{path} forward replaced"] = "forward" in vars(module)
            for name, hooks in vars(module).items():
                if name.endswith("hooks"):
                    found[f"{path} {name}"] = list(hooks or ())
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                found[f"{path} {name}"] = (digest(tensor), tensor.requires_grad, tensor.grad, tensor._backward_hooks)
        return found


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()


@contextmanager
def leaves_everything_as_it_was(setting: Setting) -> Iterator[None]:
    before = setting.state()
    yield
    after = setting.state()
    assert {key: (before.get(key), after.get(key)) for key in before | after if before.get(key) != after.get(key)} == {}


def cases() -> list[Any]:
    found = []
    for name in method_names():
        resolutions = get_method(name, dict(SHORT.get(name, {}))).resolutions
        if resolutions in ("from the model", "any"):
            resolutions = FROM_THE_MODEL
        found += [pytest.param(name, resolution, id=f"{name}-{resolution}") for resolution in resolutions]
    return found


every_method = pytest.mark.parametrize(("name", "resolution"), cases())


@every_method
def test_maps_are_what_was_asked_for_and_the_same_twice(name: str, resolution: int) -> None:
    setting = Setting(name, resolution)
    with leaves_everything_as_it_was(setting):
        maps = setting.explain()
    assert maps.shape == (COUNT, 1, resolution, resolution)
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()
    assert not maps.requires_grad and not maps.is_inference()
    assert (maps.flatten(1).std(1) > 0).all(), "a map that is the same everywhere shows nothing here"
    assert setting.evaluate.forwards > 0, "passes are not counted"
    assert torch.equal(setting.explain(), maps)


@every_method
def test_the_grad_mode_of_the_caller_has_no_say(name: str, resolution: int) -> None:
    setting = Setting(name, resolution)
    expected = setting.explain()
    with torch.no_grad(), leaves_everything_as_it_was(setting):
        assert torch.equal(setting.explain(), expected)


@every_method
def test_an_image_alone_gives_what_it_gives_in_a_batch(name: str, resolution: int) -> None:
    iterative = name in ITERATIVE  # compared in float64
    setting = Setting(name, resolution, torch.float64 if iterative else torch.float32)
    together, turned = setting.explain(), setting.explain(2, 0, 1)
    tolerance = (1e-9 if iterative else 1e-5) * together.abs().amax((1, 2, 3))
    for b in range(COUNT):
        assert (setting.explain(b)[0] - together[b]).abs().max() <= tolerance[b]
        assert (turned[(2, 0, 1).index(b)] - together[b]).abs().max() <= tolerance[b]


@every_method
def test_an_exception_inside_the_network_leaves_nothing_behind(name: str, resolution: int) -> None:
    setting = Setting(name, resolution)
    moments = random.Random(f"{name} {resolution}")
    place = moments.randrange(len(setting.network))
    passes = 0
    breaks_at: int | None = None

    def count_and_break(_module: nn.Module, _inputs: object) -> None:
        nonlocal passes
        passes += 1
        if passes == breaks_at:
            raise BrokenError

    for network in (setting.network, setting.fast_network):
        network[place].register_forward_pre_hook(count_and_break)
    expected = setting.explain()
    assert passes > 0, f"{network[place]} never ran"

    breaks_at = moments.randint(1, passes)
    passes = 0
    message = f"{network[place]} was broken at its {breaks_at}th pass"
    with leaves_everything_as_it_was(setting), pytest.raises(BrokenError):
        setting.explain()
    assert passes == breaks_at, message
    breaks_at = None
    assert torch.equal(setting.explain(), expected), message
