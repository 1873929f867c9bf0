"""What the command line says, checked against `conf/` and the schema before anything heavy is imported."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import Any, cast

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep, Sweep, ValueType
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import (
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from .composing import composed, hydra_of, parse, put, search_path, told
from .config import RunConfig, leaves
from .errors import UserError, unknown
from .hydra_settings import check_launcher, check_untouched, check_word
from .paths import is_folder

HERE = Path(__file__).parent
CONF = str(next(path for path in (HERE / "conf", HERE.parent / "conf") if path.is_dir()))
GROUPS = ("method", "model", "data", "protocol", "experiment")
MOST_JOBS = 10_000
_NOT_WRITTEN_OUT = (ValueType.GLOB_CHOICE_SWEEP, ValueType.INTERVAL_SWEEP)


def check_overrides(words: Sequence[str], config_dir: str | None = None, *, sweep: bool = False) -> None:
    """Refuse what neither `conf/` nor the user's own `config_dir` has; raises UserError with the near miss."""
    overrides = parse(words)
    if config_dir is not None and not is_folder(config_dir):
        raise UserError(f"--config-dir {config_dir}: no such folder")
    search = search_path(config_dir)
    with initialize_config_dir(CONF, version_base="1.3"):
        usual = hydra_of(composed(search, hydra=True))  # and puts the user's folder where it is found and listed
        _check_words(overrides, sweep=sweep)
        chosen = _chosen(overrides, config_dir)
        single = [override.input_line or "" for override in overrides if not override.is_sweep_override()]
        choosing = [word for word in single if word.partition("=")[0] in GROUPS]
        base = composed([*search, *choosing], hydra=True)
        check_untouched(usual, hydra_of(base))
        named = {override.key_or_group for override in overrides}
        left = {key: values for key, values in _swept_by_yaml(base).items() if key not in named}
        if left and not sweep:
            by = " ".join(word for word in choosing if word.startswith("experiment=")) or "a YAML file"
            raise UserError(
                f"{by} is a sweep over {' and '.join(left)}, which needs the flag -m; "
                f"for one cell of it, name that: {' '.join(f'{key}=...' for key in left)}"
            )
        overrides += parse([f"{key}={values}" for key, values in left.items()])
        _check_words(overrides, sweep=sweep)
        chosen |= _chosen(overrides, config_dir)
        for choices in _choices(chosen, whole=config_dir is not None):
            found = composed([*search, *(f"{group}={value}" for group, value in choices.items())], hydra=True)
            check_untouched(usual, hydra_of(found))
            with open_dict(found):
                del found["hydra"]
            known = list(_keys(cast(dict[Any, Any], OmegaConf.to_container(found, resolve=False))))
            for override in filter(_is_value, overrides):
                key, group = override.key_or_group, override.key_or_group.partition(".")[0]
                is_swept = len(chosen.get(group, ())) > 1
                _check_key(f"key for {group}={choices[group]}" if is_swept else "key", key, known)
                if override.is_sweep_override():
                    for word in parse(_swept_words(override)):
                        put(found, key, word.value())
        # What is left to be wrong: a value inside another, a word of Hydra's own.
        whole = hydra_of(composed([*search, *single], hydra=True))
        said = [key.replace("/", ".").removeprefix("hydra.") for key in named if key.startswith("hydra")]
        check_untouched(usual, whole, said)
        check_launcher(whole)


def compose_jobs(words: Sequence[str], config_dir: str | None = None, *, sweep: bool = False) -> Iterator[Any]:
    """The configurations of all jobs that checked words ask for, in the order in which Hydra's sweeper launches them.

    Hydra's own composes every job twice, a twentieth of a second each time. Here the jobs that choose the same YAMLs
    share one composition, into which each puts its values. Raises UserError.
    """
    search = search_path(config_dir)
    shared: dict[tuple[str, ...], Any] = {}
    with initialize_config_dir(CONF, version_base="1.3"):
        for job in _split(words, search) if sweep else [list(words)]:
            overrides = parse(job)
            choices = tuple(override.input_line or "" for override in overrides if not _is_value(override))
            if choices not in shared:
                shared[choices] = composed([*search, *choices], hydra=True)
            config = copy.deepcopy(shared[choices])
            for override in filter(_is_value, overrides):
                put(config, override.key_or_group, override.value())
            HydraConfig.instance().set_config(config)  # a YAML of the user's may speak of ${hydra:...}
            with open_dict(config):
                del config["hydra"]
            yield config


@contextmanager
def composed_sweep(words: Sequence[str], config_dir: str | None = None) -> Iterator[tuple[Any, list[list[str]]]]:
    """What checked words say to a launcher: the configuration that all jobs share, and the words of each job.

    Hydra's own settings are in the one and not in the others, whose order is that of `compose_jobs`. Hydra's loader of
    configurations is there within the context.
    """
    search = search_path(config_dir)
    with initialize_config_dir(CONF, version_base="1.3"):
        single = [override.input_line or "" for override in parse(words) if not override.is_sweep_override()]
        config = composed([*search, *single], hydra=True)
        # A date in it is that of the sweep, not of each job.
        config.hydra.sweep.dir = str(Path(config.hydra.sweep.dir).absolute())
        # A launcher adds Hydra's own words itself.
        yield config, [[word for word in job if not word.startswith("hydra")] for job in _split(words, search)]


def compose_config(words: Sequence[str], config_dir: str | None = None) -> RunConfig:
    """The configuration that the words after `igos-bench` ask for. Raises UserError."""
    check_overrides(words, config_dir)
    with initialize_config_dir(CONF, version_base="1.3"):
        return typed(composed([*search_path(config_dir), *words]))


def compose_unresolved(words: Sequence[str], config_dir: str | None = None) -> dict[str, Any]:
    """What checked words choose, with `???` where a YAML wants a value and `${...}` as it stands."""
    with initialize_config_dir(CONF, version_base="1.3"):
        found = OmegaConf.to_container(composed([*search_path(config_dir), *words]), resolve=False)
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(_schema(), found), resolve=False))


def typed(config: Any) -> RunConfig:
    """A composed config with the types of `config.RunConfig`; raises UserError."""
    try:
        merged = OmegaConf.merge(_schema(), OmegaConf.to_container(config, resolve=True))
        found = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if isinstance(error, (MissingMandatoryValue, InterpolationToMissingValueError)):
            raise UserError(f"{lines[0].rpartition(': ')[2]} has no value: write it as KEY=VALUE") from None
        if isinstance(error, UnsupportedInterpolationType):
            raise told(error, "the configuration cannot be used") from None
        key = next((line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")), "")
        raise UserError(f"{key}: {lines[0]}" if key else lines[0]) from None
    assert isinstance(found, RunConfig)
    name = (found.method or {}).get("name")
    if not isinstance(name, str):
        has = "no `name`" if name is None else f"name: {name!r}"
        raise UserError(f"the method's YAML has {has}: write `name: NAME`, the name of the method's class")
    for key, value in leaves(asdict(found)):
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"{key}={value!r}: no text of a configuration can have a NUL in it")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key}={value}: give a finite number")
    return found


@cache
def _schema() -> Any:
    return OmegaConf.structured(RunConfig)


def _check_words(overrides: Sequence[Override], *, sweep: bool) -> None:
    """Refuse what no word may say, wherever it comes from."""
    for override in overrides:
        key, word = override.key_or_group, override.input_line or ""
        if override.is_sweep_override() and not sweep:
            raise UserError(f"{word}: several values are a sweep, which needs the flag -m")
        inside = override._value.list if isinstance(override._value, ChoiceSweep) else []
        if override.value_type in _NOT_WRITTEN_OUT or any(isinstance(value, Sweep) for value in inside):
            raise UserError(f"{word}: write the values of a sweep out, {key}=VALUE,VALUE")
        if override.package is not None:
            raise UserError(f"{word}: write {key}=VALUE, without @")
        if override.is_add() or override.is_force_add() or override.is_delete():
            raise UserError(f"{word}: keys cannot be added or removed; write KEY=VALUE of a known key")
        if key.split(".")[0].split("/")[0] == "hydra":
            if override.is_sweep_override():
                raise UserError(f"{word}: Hydra's own settings have one value, also in a sweep")
            check_word(key, word)
    _check_size(overrides)


def _chosen(overrides: Sequence[Override], config_dir: str | None) -> dict[str, list[str]]:
    """Group -> the choices that the words make, which must be there."""
    chosen: dict[str, list[str]] = {}
    for override in overrides:
        key = override.key_or_group
        if key in GROUPS:
            there = _options(key, config_dir)
            chosen[key] = _texts(override)
            for value in chosen[key]:
                if value not in there:
                    any_other = f"; for any classifier: model=timm model.architecture={value}" * (key == "model")
                    raise UserError(unknown(key, value, there) + any_other)
    return chosen


def _check_size(overrides: Sequence[Override]) -> None:
    """Refuse a sweep without a job, and one with more than anybody means, before its values are written out."""
    jobs = 1
    for override in filter(Override.is_sweep_override, overrides):
        swept = override._value
        if isinstance(swept, RangeSweep):
            try:
                count = max(0, math.ceil(((swept.stop or 0) - (swept.start or 0)) / swept.step))
            except (ArithmeticError, ValueError) as error:
                raise UserError(f"{override.input_line}: no range of values ({error})") from None
        else:
            count = len(_texts(override))
        if count == 0:
            raise UserError(f"{override.input_line}: a sweep over no value at all")
        jobs *= count
    if jobs > MOST_JOBS:
        raise UserError(
            f"{jobs:,} jobs are more than a sweep can have, {MOST_JOBS:,}: sweep over fewer values at a time"
        )


def _swept_words(override: Override) -> list[str]:
    """A word for each of its values; for one of them where they are a range, of which none fits less than another."""
    count = 1 if isinstance(override._value, RangeSweep) else None
    return [f"{override.key_or_group}={text}" for text in islice(override.sweep_string_iterator(), count)]


def _texts(override: Override) -> list[str]:
    """Its values as they are written."""
    return (
        [str(value) for value in override.sweep_iterator()] if override.is_sweep_override() else [str(override.value())]
    )


def _choices(chosen: Mapping[str, list[str]], *, whole: bool) -> list[dict[str, str]]:
    """Choices of groups in which every value occurs; with `whole`, every combination of them."""
    if whole:
        return [dict(zip(chosen, values, strict=True)) for values in product(*chosen.values())]
    last = {group: values[-1] for group, values in chosen.items()}
    return [last, *(last | {group: value} for group, values in chosen.items() for value in values[:-1])]


def _split(words: Sequence[str], search: Sequence[str]) -> list[list[str]]:
    """The words of each job of a sweep, over their values and over those that an experiment's YAML sweeps."""
    single = [override.input_line or "" for override in parse(words) if not override.is_sweep_override()]
    params = [f"{key}={values}" for key, values in _swept_by_yaml(composed([*search, *single], hydra=True)).items()]
    (jobs,) = BasicSweeper.split_arguments(parse([*params, *words]), max_batch_size=None)
    return jobs


def _swept_by_yaml(config: Any) -> dict[str, str]:
    """Key -> values, with commas between, that a YAML, an experiment's mostly, sweeps over."""
    found = {str(key): str(values) for key, values in (config.hydra.sweeper.get("params") or {}).items()}
    for key in found:
        if key.lstrip("+~").startswith("hydra"):
            raise UserError(f"hydra.sweeper.params.{key} is set by a YAML file: it may sweep over keys of a run alone")
    return found


def _is_value(override: Override) -> bool:
    """Whether it sets one value, not a group's choice or Hydra's own."""
    return override.key_or_group not in GROUPS and not override.is_hydra_override()


def _check_key(what: str, key: str, known: Sequence[str]) -> None:
    if key in known or any(name.startswith(f"{key}.") for name in known):
        return
    parent = key.rpartition(".")[0]
    beside = [name for name in known if name.rpartition(".")[0] == parent] or [n for n in known if "." not in n]
    raise UserError(unknown(what, key, known, show=beside))


def _options(group: str, config_dir: str | None) -> list[str]:
    found = GlobalHydra.instance().config_loader().get_group_options(group, ObjectType.CONFIG)
    if config_dir:
        found = [*found, *(path.stem for path in Path(config_dir, group).glob("*.yaml"))]
    return sorted(set(found))


def _keys(config: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys of a nested dictionary, its inner ones included."""
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
