"""The words that a script is given, name=value, as a dataclass of its options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from igos_bench.errors import UserError, first_line, unknown

Options = TypeVar("Options")


def read_options(structure: type[Options], words: Sequence[str] | None = None) -> Options:
    """The options that `words` or, without, the command line gives; the others are as the dataclass has them.

    Raises:
        UserError: A name that the dataclass lacks, or a value that does not fit.
    """
    words = sys.argv[1:] if words is None else words
    known = [field.name for field in fields(structure)]  # type: ignore[arg-type]
    for name in (word.partition("=")[0] for word in words):
        if name.partition(".")[0] not in known:
            raise UserError(unknown("key", name, known))
    try:
        merged = OmegaConf.merge(OmegaConf.structured(structure), OmegaConf.from_cli(list(words)))
        options = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"{' '.join(words)}: {first_line(error)}") from None
    assert isinstance(options, structure)
    return options
