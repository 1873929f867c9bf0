"""What may be said of Hydra's own settings, which can run code: callbacks, loggers, launchers, a job's environment.

A YAML file may say what an experiment sweeps over and nothing else, so that somebody else's can be used without being
read. The command line may choose and set a launcher, and where a sweep has its folders.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .config import leaves
from .errors import UserError

WORDS = re.compile(r"hydra/launcher|hydra\.(launcher|sweep)\.[^.].*|hydra\.job\.name")
FREE = ("sweeper.params", "runtime", "overrides", "job.override_dirname")
"""What a YAML may change, and what Hydra itself notes down."""

PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.")
"""Where classes of launchers are, in the packages of people who were asked to be on this machine."""


def check_word(key: str, word: str) -> None:
    """Raise UserError for a word of the command line that sets anything else."""
    if not WORDS.fullmatch(key):
        raise UserError(
            f"{word}: of Hydra's own settings only hydra/launcher, hydra.launcher.KEY, hydra.sweep.KEY and "
            "hydra.job.name can be set here"
        )


def check_untouched(usual: Mapping[str, Any], found: Mapping[str, Any], said: Sequence[str] = ()) -> None:
    """Raise UserError where the chosen YAML files made Hydra's settings differ from those of `conf/`, unresolved.

    What the command line has `said`, names below `hydra`, may differ, and has been looked at.
    """
    before, after = dict(leaves(usual)), dict(leaves(found))
    for key in sorted(before.keys() | after.keys()):
        free = any(f"{key}.".startswith(f"{name}.") for name in (*FREE, *said))
        if not free and before.get(key, _NOTHING) != after.get(key, _NOTHING):
            raise UserError(
                f"hydra.{key} is set by a YAML file: of Hydra's own settings, which can run code, a YAML may have "
                "hydra.sweeper.params alone; take it out"
            )


def check_launcher(found: Mapping[str, Any]) -> None:
    """Raise UserError where it is no installed plugin of Hydra's, or its settings make objects or several tasks."""
    for key, value in leaves(found["launcher"]):
        plugin = key == "_target_" and str(value).startswith(PLUGINS)
        if key.rpartition(".")[2].startswith("_") and key.endswith("_") and not plugin:
            raise UserError(
                f"hydra.launcher.{key}={value}: a launcher is a plugin of Hydra's with plain settings; install its "
                "package and choose it with hydra/launcher=NAME"
            )
    for key in ("tasks_per_node", "nodes"):
        if str(value := found["launcher"].get(key, 1)) != "1":
            raise UserError(
                f"hydra.launcher.{key}={value}: Hydra hears of the first task of a job alone, so that failures of the "
                "others would be lost; leave it at 1, and spread a cell with shards=N"
            )


_NOTHING = object()
