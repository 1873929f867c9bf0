"""What Hydra and OmegaConf make of words and YAML files, with their complaints as one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Sweep
from omegaconf import OmegaConf
from omegaconf.errors import UnsupportedInterpolationType

from .errors import UserError, first_line

# Functions that `${...:...}` in anybody's YAML could call, to read the environment among others. Hydra's own,
# `hydra`, `now` and `python_version`, stay.
for _function in ("env", "create", "decode", "deprecated", "dict.keys", "dict.values", "select"):
    OmegaConf.clear_resolver(f"oc.{_function}")


def parse(words: Sequence[str]) -> list[Override]:
    """The words after `igos-bench` as Hydra understands them; raises UserError."""
    try:
        return OverridesParser.create().parse_overrides(list(words))
    except Exception as error:  # of the parser, or of Python at a number of 5,000 digits
        raise UserError(f"cannot read the words {' '.join(words)!r}: {first_line(error)}") from None


def values_of(override: Override) -> list[Any]:
    """The one value of a word, or those between the commas of `a,b`; raises UserError at a range or the like."""
    if not override.is_sweep_override():
        return [override.value()]
    values = override.value()
    if isinstance(values, ChoiceSweep) and not any(isinstance(value, Sweep) for value in values.list):
        return [parse([f"{override.key_or_group}={text}"])[0].value() for text in override.sweep_string_iterator()]
    raise UserError(f"{override.input_line}: write the values out, {override.key_or_group}=[VALUE,VALUE]")


def composed(words: Sequence[str], *, hydra: bool = False) -> Any:
    """The configuration that the words choose and change, with Hydra's own settings or without; raises UserError."""
    try:
        return compose("config", list(words), return_hydra_config=hydra)
    except Exception as error:  # Hydra, OmegaConf and the YAML parser raise nearly anything on other people's files
        raise told(error, f"a YAML file of {' '.join(words) or 'conf/'} cannot be used") from None


def put(config: Any, key: str, value: Any) -> None:
    """Change one value of a composed configuration; raises UserError."""
    try:
        OmegaConf.update(config, key, value, merge=True)
    except Exception as error:  # as there
        raise told(error, f"{key}={value} cannot be used") from None


def hydra_of(config: Any) -> dict[str, Any]:
    """Hydra's own settings in a composed configuration, as they are written."""
    return cast(dict[str, Any], OmegaConf.to_container(config.hydra, resolve=False))


def search_path(config_dir: str | None) -> list[str]:
    """The words that put the user's own folder, whatever its name, on Hydra's search path."""
    if not config_dir:
        return []
    # In Hydra's quotes a backslash is doubled before a quote, and nowhere else.
    folder = re.sub(r"(\\*)'", r"\1\1\\'", f"file://{Path(config_dir).resolve()}")
    quoted = re.sub(r"(\\+)$", r"\1\1", folder)
    return [f"hydra.searchpath=['{quoted}']"]


def told(error: Exception, what: str) -> UserError:
    """A complaint of Hydra, OmegaConf or the YAML parser as one line; `what` is said of others, which do not say it."""
    if isinstance(error, UnsupportedInterpolationType):
        return UserError(
            f"{first_line(error)}: a configuration reads other keys, ${{KEY}}, and nothing of this machine; write the "
            "value out, or as KEY=VALUE on the command line"
        )
    text = " ".join(str(error).split())
    readable = type(error).__module__.partition(".")[0] in ("hydra", "omegaconf", "yaml")
    return UserError(text if readable and text else f"{what}: {type(error).__name__}: {text}")
