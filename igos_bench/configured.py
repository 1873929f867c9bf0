"""What a configuration asks for, its numbers and its method, as far as it can be checked without the network."""

from __future__ import annotations

from collections.abc import Sequence

from .config import RunConfig
from .errors import UnavailableError, UserError, unknown
from .methods import Method, get_method, method_names
from .tuned import tuned_lambdas

PAPER = (224, 112, 28, 14)
"""The paper's resolutions, which nobody mistypes: a method that lacks one simply has none."""


def check_numbers(config: RunConfig) -> None:
    """Raise UserError for numbers that no run could have."""
    if config.chunk_size is not None and config.chunk_size < 1:
        raise UserError(f"chunk_size must be at least 1, found {config.chunk_size}")
    if not 1 <= config.lease_seconds <= 86400:
        raise UserError(f"lease_seconds must be from 1 to 86400, found {config.lease_seconds:g}")
    if not 0 <= config.seed < 2**63:
        raise UserError(f"seed must be from 0 to 2^63 - 1, found {config.seed}")


def configured_method(config: RunConfig) -> Method:
    """Build it, and check the resolution where that does not depend on the network.

    Raises:
        UserError: No such method or hyper-parameter, layers for a method that does not exist, or nothing was tuned.
        UnavailableError: It has no such resolution.
    """
    names = method_names() if config.model.layers else []
    for key in config.model.layers:
        if key not in names:
            raise UserError(unknown("method in model.layers", key, names))
    parameters = dict(config.method)
    name = parameters.pop("name")
    if parameters.get("lambdas") == "tuned":
        parameters["lambdas"] = tuned_lambdas(config.model.name, name)
    method = get_method(name, parameters)
    if method.resolutions != "from the model":
        check_resolution(method.name, config.model.name, config.resolution, method.resolutions)
    return method


def available_method(config: RunConfig) -> Method:
    """As `configured_method`, and check the resolution also where `conf/` says what the model has, without loading it.

    Raises:
        UserError: As there.
        UnavailableError: The method has no such resolution, as far as `conf/` says without looking at the network.
    """
    method = configured_method(config)
    if method.resolutions == "from the model" and (known := tuple(config.model.layers.get(method.name, ()))):
        check_resolution(method.name, config.model.name, config.resolution, known)
    return method


def check_resolution(method: str, model: str, resolution: int, choices: Sequence[int]) -> None:
    """Raise UnavailableError where the method does not produce the resolution on this model."""
    if resolution not in choices:
        there = ", ".join(map(str, choices)) or "none"
        nearest = min(choices, key=lambda choice: abs(choice - resolution), default=None)
        hint = f" (did you mean {nearest}?)" if nearest and resolution not in PAPER else ""
        raise UnavailableError(f"{method} has no resolution {resolution} on {model}{hint}; available: {there}")
