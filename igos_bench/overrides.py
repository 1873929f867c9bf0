"""What the command line says, checked against `conf/` and the schema before anything heavy is imported."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from .config import RunConfig
from .errors import UserError, unknown

HERE = Path(__file__).parent
CONF = str(next(path for path in (HERE / "conf", HERE.parent / "conf") if path.is_dir()))
GROUPS = ("method", "model", "data", "protocol", "experiment")


def check_overrides(words: Sequence[str], config_dir: str | None = None, *, sweep: bool = False) -> None:
    """Refuse what neither `conf/` nor the user's own `config_dir` has; raises UserError with the near miss."""
    try:
        overrides = OverridesParser.create().parse_overrides(list(words))
    except HydraException as error:
        raise UserError(f"cannot read the words {' '.join(words)!r}: {str(error).splitlines()[0]}") from None
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: no such folder")
    search = _search(config_dir)
    chosen: dict[str, list[str]] = {}
    others: list[str] = []
    with initialize_config_dir(CONF, version_base="1.3"):
        compose("config", search)  # puts the user's folder on the search path, so that its groups are listed
        for override in overrides:
            key = override.key_or_group
            if override.is_sweep_override() and not sweep:
                raise UserError(f"{override.input_line}: several values are a sweep, which needs the flag -m")
            if override.value_type in (ValueType.GLOB_CHOICE_SWEEP, ValueType.INTERVAL_SWEEP):
                raise UserError(f"{override.input_line}: write the values of a sweep out, {key}=VALUE,VALUE")
            if override.package is not None:
                raise UserError(f"{override.input_line}: write {key}=VALUE, without @")
            if override.is_add() or override.is_force_add() or override.is_delete():
                raise UserError(
                    f"{override.input_line}: keys cannot be added or removed; write KEY=VALUE of a known key"
                )
            if key.split(".")[0].split("/")[0] == "hydra":
                if override.is_sweep_override():
                    raise UserError(f"{override.input_line}: Hydra's own settings have one value, also in a sweep")
                continue
            if key not in GROUPS:
                others.append(key)
                continue
            there = _options(key, config_dir)
            values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
            chosen[key] = [str(value) for value in values]
            for value in chosen[key]:
                if value not in there:
                    any_other = f"; for any classifier: model=timm model.architecture={value}" * (key == "model")
                    raise UserError(unknown(key, value, there) + any_other)
        single = [override.input_line or "" for override in overrides if not override.is_sweep_override()]
        choosing = [word for word in single if word.partition("=")[0] in GROUPS]
        try:
            swept = _swept_by_experiment(search, choosing) if "experiment" in chosen else {}
        except HydraException as error:
            raise UserError(" ".join(str(error).split())) from None
        named = {override.key_or_group for override in overrides}
        left = {key: values.split(",") for key, values in swept.items() if key not in named}
        if left and not sweep:
            raise UserError(
                f"experiment={chosen['experiment'][0]} is a sweep over {' and '.join(left)}, which needs the flag -m; "
                f"for one cell of it, name that: {' '.join(f'{key}=...' for key in left)}"
            )
        chosen |= {key: values for key, values in left.items() if key in GROUPS}
        # Every value of a sweep once: a key of one method is not one of the next.
        last = {group: values[-1] for group, values in chosen.items()}
        one_changed = [last | {group: value} for group, values in chosen.items() for value in values[:-1]]
        for choices in (last, *one_changed):
            try:
                composed = compose("config", [*search, *(f"{group}={value}" for group, value in choices.items())])
            except HydraException as error:
                raise UserError(" ".join(str(error).split())) from None
            known = list(_keys(cast(dict[Any, Any], OmegaConf.to_container(composed, resolve=False))))
            for key in others:
                group = key.partition(".")[0]
                is_swept = len(chosen.get(group, ())) > 1
                _check_key(f"key for {group}={choices[group]}" if is_swept else "key", key, known)
        try:  # what is left to be wrong: a value inside another, a word of Hydra's own
            compose("config", [*search, *single], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(" ".join(str(error).split())) from None


def compose_jobs(words: Sequence[str], config_dir: str | None = None, *, sweep: bool = False) -> Iterator[Any]:
    """The configurations of all jobs that checked words ask for, in the order in which Hydra's sweeper launches them.

    Hydra's own composes every job twice, a twentieth of a second each time. Here the jobs that choose the same YAMLs
    share one composition, into which each puts its values. Raises UserError.
    """
    search = _search(config_dir)
    composed: dict[tuple[str, ...], Any] = {}
    with initialize_config_dir(CONF, version_base="1.3"):
        try:
            for job in _split(words, search) if sweep else [list(words)]:
                overrides = OverridesParser.create().parse_overrides(job)
                values = [override for override in overrides if _is_value(override)]
                choices = tuple(override.input_line or "" for override in overrides if not _is_value(override))
                if choices not in composed:
                    composed[choices] = compose("config", [*search, *choices], return_hydra_config=True)
                config = copy.deepcopy(composed[choices])
                for override in values:
                    OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
                HydraConfig.instance().set_config(config)  # a YAML of the user's may speak of ${hydra:...}
                with open_dict(config):
                    del config["hydra"]
                yield config
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(" ".join(str(error).split())) from None


def compose_config(words: Sequence[str], config_dir: str | None = None) -> RunConfig:
    """The configuration that the words after `igos-bench` ask for. Raises UserError."""
    check_overrides(words, config_dir)
    with initialize_config_dir(CONF, version_base="1.3"):
        return typed(compose("config", [*_search(config_dir), *words]))


def compose_unresolved(words: Sequence[str], config_dir: str | None = None) -> dict[str, Any]:
    """What checked words choose, with `???` where a YAML wants a value and `${...}` as it stands."""
    with initialize_config_dir(CONF, version_base="1.3"):
        composed = OmegaConf.to_container(compose("config", [*_search(config_dir), *words]), resolve=False)
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(_schema(), composed), resolve=False))


def typed(config: Any) -> RunConfig:
    """A composed config with the types of `config.RunConfig`; raises UserError."""
    try:
        merged = OmegaConf.merge(_schema(), OmegaConf.to_container(config, resolve=True))
        found = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if isinstance(error, (MissingMandatoryValue, InterpolationToMissingValueError)):
            raise UserError(f"{lines[0].rpartition(': ')[2]} has no value: write it as KEY=VALUE") from None
        key = next((line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")), "")
        raise UserError(f"{key}: {lines[0]}" if key else lines[0]) from None
    assert isinstance(found, RunConfig)
    if "name" not in found.method:
        raise UserError("the method's YAML has no `name`: write `name: NAME`, the name of the method's class")
    return found


@cache
def _schema() -> Any:
    return OmegaConf.structured(RunConfig)


def _split(words: Sequence[str], search: Sequence[str]) -> list[list[str]]:
    """The words of each job of a sweep, over their values and over those that an experiment's YAML sweeps."""
    parse = OverridesParser.create().parse_overrides
    single = [override.input_line or "" for override in parse(list(words)) if not override.is_sweep_override()]
    params = [f"{key}={values}" for key, values in _swept_by_experiment(search, single).items()]
    (jobs,) = BasicSweeper.split_arguments(parse([*params, *words]), max_batch_size=None)
    return jobs


def _swept_by_experiment(search: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """Key -> values, with commas between, that an experiment's YAML sweeps over."""
    sweeper = compose("config", [*search, *words], return_hydra_config=True).hydra.sweeper
    return {str(key): str(values) for key, values in (sweeper.get("params") or {}).items()}


def _is_value(override: Override) -> bool:
    """Whether it sets one value, not a group's choice or Hydra's own."""
    return override.key_or_group not in GROUPS and not override.is_hydra_override()


def _check_key(what: str, key: str, known: Sequence[str]) -> None:
    if key in known or any(name.startswith(f"{key}.") for name in known):
        return
    parent = key.rpartition(".")[0]
    beside = [name for name in known if name.rpartition(".")[0] == parent] or [n for n in known if "." not in n]
    raise UserError(unknown(what, key, known, show=beside))


def _search(config_dir: str | None) -> list[str]:
    """What puts the user's own folder on Hydra's search path."""
    return [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []


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
