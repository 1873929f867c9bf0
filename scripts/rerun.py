"""From a run.json back to its run: the configuration, and the command lines that make it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from igos_bench.config import RunConfig, plain
from igos_bench.errors import UnavailableError, UserError
from igos_bench.overrides import CONF, compose_config, typed
from igos_bench.plan import plan

Place = tuple[str, int]
"""A method and a resolution."""


def read_config(content: Mapping[str, Any]) -> RunConfig:
    """The configuration that run.json has as `content`."""
    return typed(OmegaConf.create(_with_numbers(content)))


def words_of(config: RunConfig) -> tuple[str, ...] | None:
    """What makes this run under `paper`, but for method=, resolution= and results_dir=.

    None where the command line cannot say it: a YAML of somebody's own, or maps that were made elsewhere.
    """
    data, model = f"data={config.data.layout}", f"model={config.model.name}"
    words = [f"method={config.method['name']}", data, model]
    if not Path(CONF, "model", f"{config.model.name}.yaml").exists():
        words[2:] = [f"model={config.model.library}", f"model.architecture={config.model.architecture}"]
    try:
        words += _differences(_asked(config), _asked(_composed(tuple(words))))
        return tuple(words[1:]) if _asked(_composed(tuple(words))) == _asked(config) else None
    except UserError:
        return None


def has_default_method(config: RunConfig) -> bool:
    """Whether all hyper-parameters are those of `conf/method/`."""
    words = words_of(config)
    return words is not None and not any(word.startswith("method.") for word in words)


def commands(runs: Sequence[tuple[RunConfig, str]], results_dir: str) -> Iterator[str]:
    """Command lines that make these runs, each with one more word, and compute no other; as few as are found."""
    grouped: dict[tuple[str, ...], list[Place]] = {}
    for config, word in runs:
        method, words = config.method["name"], words_of(config)
        if words is None:
            yield f"(what made {method} at {config.resolution}, with {word})"
        else:
            words = (*words, word, f"results_dir={_written(results_dir)}")
            grouped.setdefault(words, []).append((method, config.resolution))
    for words, places in grouped.items():
        for methods, resolutions in _blocks(words, places):
            swept = f"method={','.join(sorted(methods))}", f"resolution={','.join(map(str, sorted(resolutions)[::-1]))}"
            yield shlex.join(["igos-bench", "-m", *swept, *words])


def _blocks(words: tuple[str, ...], places: Sequence[Place]) -> list[tuple[set[str], set[int]]]:
    """Methods and resolutions of sweeps that together have all the places, and others only where that costs nothing."""
    blocks: list[tuple[set[str], set[int]]] = []
    for method, resolution in places:
        for methods, resolutions in blocks:
            wider = product(methods | {method}, resolutions | {resolution})
            if all(place in places or _is_free(words, *place) for place in wider):
                methods.add(method)
                resolutions.add(resolution)
                break
        else:
            blocks.append(({method}, {resolution}))
    return blocks


def _is_free(words: tuple[str, ...], method: str, resolution: int) -> bool:
    """Whether a sweep would pass over this cell: there is none, or it is done."""
    try:
        planned = plan(replace(_composed((f"method={method}", *words)), resolution=resolution))
    except UserError as error:
        return isinstance(error, UnavailableError)
    return planned.done == planned.requested


@cache
def _composed(words: tuple[str, ...]) -> RunConfig:
    """`compose_config`, once for the same words."""
    return compose_config(words)


def _asked(config: RunConfig) -> dict[str, Any]:
    """The part of a configuration that `words_of` speaks of."""
    kept = plain(asdict(config))
    return {key: value for key, value in kept.items() if key not in ("protocol", "resolution", "results_dir")}


def _differences(config: Mapping[str, Any], base: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The words that turn `base` into `config`."""
    for key, value in config.items():
        there = base.get(key)
        # A number among the keys cannot be reached with dots: Hydra takes it for text.
        if isinstance(value, dict) and isinstance(there, dict) and not any(map(str.isdigit, value)):
            yield from _differences(value, there, f"{prefix}{key}.")
        elif value != there:
            yield f"{prefix}{key}={_written(value)}"


def _written(value: Any) -> str:
    """A value as it stands on the command line, before the shell's quotes."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z/.][\w./-]*", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _with_numbers(value: Any) -> Any:
    """JSON has keys as text: those of `lambdas` and `layers` back to numbers."""
    if not isinstance(value, Mapping):
        return value
    return {int(key) if key.isdigit() else key: _with_numbers(item) for key, item in value.items()}
