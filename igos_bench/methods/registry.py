"""Methods by name."""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

from ..errors import UserError, first_line, unknown
from ..perturb import Baseline

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..evaluate import Evaluator

ENTRY_POINT_GROUP = "igos_bench.methods"

Resolutions = tuple[int, ...] | Literal["from the model"]
"""Those that a method can produce; `from the model`: wherever `Evaluator.layers` has a layer for it."""


class Method(Protocol):
    """What a method is: a frozen dataclass of hyper-parameters with a call.

    `version` goes up with every change that moves numbers; `resolutions` are those it can produce.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reference: ClassVar[str]
    resolutions: ClassVar[Resolutions]

    @property
    def baseline(self) -> Baseline:
        """What the images are blended with."""

    def __call__(
        self,
        evaluate: Evaluator,
        images: Tensor,
        targets: Tensor,
        *,
        baselines: Tensor,
        resolution: int,
        generators: list[torch.Generator],
        run_generator: torch.Generator,
    ) -> Tensor:
        """Explain a batch of images.

        Args:
            evaluate: The way to the network.
            images: (B,3,H,W) in [0, 1].
            targets: (B,) classes to explain.
            baselines: (B,3,H,W) in [0, 1].
            resolution: r, of the map.
            generators: One CPU generator an image.
            run_generator: One CPU generator for draws that serve all images.

        Returns:
            Saliency maps (B,1,r,r), finite, higher = more evidence for the target.
        """


def layer_at(evaluate: Evaluator, resolution: int, method: str) -> nn.Module:
    """The module that a method reads at a resolution; raises UserError where the model has none, with those it has."""
    if resolution not in evaluate.layers:
        available = ", ".join(map(str, sorted(evaluate.layers, reverse=True))) or "none"
        raise UserError(f"{method} has no layer of this model at resolution {resolution}; available: {available}")
    return evaluate.layers[resolution]


_registry: dict[str, type[Any]] = {}
Class = TypeVar("Class", bound=type[Any])


def register(method: Class) -> Class:
    """Class decorator: make a method known by its `name`; a second class of the same name is refused."""
    known = _registry.setdefault(method.name, method)
    if known is not method and known.__qualname__ != method.__qualname__:
        raise ValueError(f"two methods are named {method.name!r}: {known!r} and {method!r}")
    return method


def method_names() -> list[str]:
    """Names of all methods, this package's and those of installed entry points."""
    return sorted({*_registry, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))})


@cache
def installed_version(name: str) -> int | None:
    """The `version` of a method; None where it is not installed, or cannot be loaded."""
    try:
        for entry in entry_points(group=ENTRY_POINT_GROUP, name=name):
            _load(entry)
    except UserError:
        return None
    return _registry[name].version if name in _registry else None


def get_method(name: str, parameters: dict[str, Any]) -> Method:
    """Build a method from its name and hyper-parameters.

    Raises:
        UserError: No such method, or no such hyper-parameter, with the nearest name; one that is lacking; a value of
            another type, or one that the method refuses; an entry point that cannot be loaded.
    """
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=name):
        _load(entry)
    if name not in _registry:
        raise UserError(
            f"{unknown('method', name, method_names())}; for one of your own, install its package, "
            f"with {name!r} among its entry points {ENTRY_POINT_GROUP!r}"
        )
    method = _registry[name]
    known = {field.name: field.type for field in fields(method)}
    for key, value in parameters.items():
        if key not in known:
            raise UserError(unknown(f"key of method {name}", key, ["name", *known]))
        kind = getattr(known[key], "__name__", known[key])  # text, where the class postpones annotations
        if kind in _SCALARS and type(value) not in _SCALARS[kind]:
            raise UserError(f"method.{key}={value!r}: method {name} needs {kind} there")
    required = [f.name for f in fields(method) if f.default is MISSING and f.default_factory is MISSING]
    if lacking := [key for key in required if key not in parameters]:
        raise UserError(f"method {name} needs {', '.join(lacking)}: write it into its YAML, or as method.{lacking[0]}=")
    if "baseline" in parameters:
        if not isinstance(parameters["baseline"], dict):
            raise UserError(
                f"method.baseline={parameters['baseline']}: write {{kind: blur, kernel_size: 51, sigma: 50.0}}"
            )
        parameters = {**parameters, "baseline": Baseline(**parameters["baseline"])}
    built: Method = method(**parameters)
    return built


# YAML's 200 stands for 200.0, and true for no number.
_SCALARS: dict[object, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,)}


def _load(entry: EntryPoint) -> None:
    """Import somebody else's method; raises UserError where that fails, or the class has another name."""
    try:
        method = register(entry.load())
    except Exception as error:  # of anybody's own code
        raise UserError(
            f"method {entry.name} cannot be loaded from {entry.value}: {type(error).__name__}: {first_line(error)}; "
            f"`python -c 'import {entry.module}'` shows where"
        ) from error
    if method.name != entry.name:
        raise UserError(f"the entry point {entry.name} is the method {method.name}: give both the same name")
