"""What a path that somebody wrote names. However odd it is, it is there or not: nothing here raises OSError.

os.path throughout: pathlib raises for an unknown ~user, for a name that is too long and where a parent may not be
entered.
"""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError


def existing(key: str, text: str, wanted: str) -> Path:
    """The file or folder that a key of the configuration names, `~` and `..` resolved away.

    Raises:
        UserError: It does not exist; `wanted` says what to give instead.
    """
    path = os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111
    if not os.path.lexists(path):
        raise UserError(f"{key}={text} does not exist: give {wanted}")
    return Path(path)


def is_folder(path: Path | str) -> bool:
    """Whether there is a folder of that name."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path | str) -> bool:
    """Whether there is a regular file of that name."""
    return os.path.isfile(path)  # noqa: PTH113


def below(folder: Path, pattern: str) -> list[Path]:
    """What there is in a folder that may not be there, by `Path.glob`, sorted."""
    return sorted(folder.glob(pattern)) if is_folder(folder) else []
