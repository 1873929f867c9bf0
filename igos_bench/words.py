"""A configuration as the words that ask for it: `overrides` the other way round, in Hydra's grammar."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from .config import plain
from .errors import UserError
from .overrides import CONF, compose_config, compose_unresolved

# Group -> the keys of its configuration that tell which YAML it came from, the best first.
_TOLD_BY = {"method": ("name",), "model": ("name", "library"), "data": ("name", "layout"), "protocol": ("name",)}
_NOT_OF_MAPS = ("method", "resolution")  # that were made elsewhere


def words_for(config: Mapping[str, Any], config_dir: str | None = None) -> list[str]:
    """The words after `igos-bench` that ask for this configuration of the YAMLs that are here.

    Args:
        config: As run.json has it.
        config_dir: The folder of the user's own YAMLs, where there is one.

    Raises:
        UserError: They cannot ask for it: a key of it is no longer there.
    """
    asked = {key: value for key, value in config.items() if not (config["maps"] and key in _NOT_OF_MAPS)}
    words = [f"{group}={_yaml(group, asked[group], config_dir)}" for group in _TOLD_BY if group in asked]
    words += [f"resolution={asked['resolution']}"] if "resolution" in asked else []
    settings = dict(flat(asked))
    usual = plain(compose_unresolved(words, config_dir))
    words += [f"{key}={written(value)}" for key, value in settings.items() if _at(usual, key) != value]
    found = plain(asdict(compose_config(words, config_dir)))
    if others := [key for key, value in settings.items() if _at(found, key) != value]:
        raise UserError(f"the YAMLs that are here make {', '.join(others)} otherwise")
    return [f"--config-dir={config_dir}", *words] if config_dir else words


def written(value: Any) -> str:
    """A value in Hydra's grammar: it reads back as the same value, of the same type."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, str) and "${" not in value and _read(f"[{value}]") == [value]:
        return value
    if isinstance(value, str):
        return QuotedString(value.replace("${", "\\${"), Quote.single).with_quotes()
    return json.dumps(value)


def _read(text: str) -> Any:
    try:
        (override,) = OverridesParser.create().parse_overrides([f"key={text}"])
        return override.value()
    except HydraException:
        return None


def _yaml(group: str, content: Mapping[str, Any], config_dir: str | None) -> str:
    """The YAML of a group that such a content came from."""
    folders = [Path(folder, group) for folder in (CONF, config_dir) if folder]
    there = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    found = next((content[key] for key in _TOLD_BY[group] if content[key] in there), None)
    if found is None and group != "protocol":  # every protocol has the same keys
        where = config_dir or "a folder of your own? Then say --config-dir FOLDER"
        raise UserError(f"no {group} YAML is named {content['name']}: was it in {where}")
    return found or "paper"


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values; a mapping from numbers is one value, as dots reach no number."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value and all(str(inner).isidentifier() for inner in value):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _at(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content
