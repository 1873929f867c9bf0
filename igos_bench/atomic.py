"""Files that are there whole or not at all, and nothing else beside them, whenever a process is told to end."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO

from .errors import cannot_write

Content = bytes | Callable[[IO[bytes]], None]
"""All that a file is to hold, or what writes it into the file, for what is too large to be held at once."""


def write_atomically(path: Path, content: Content, *, flush: bool = True) -> None:
    """Write a file beside its place, flush it to the disk and rename it into place.

    Args:
        path: Its place.
        content: All of it.
        flush: False leaves that to the system: a power cut in the next seconds may leave an empty file.

    Raises:
        WriteError: The folder cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_inside(path.parent, path, content, flush=flush)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_inside(folder: Path, path: Path, content: Content, *, flush: bool) -> None:
    """Write a file inside `folder`, on the same file system, and rename it into its place; raises OSError."""
    temporary = _temporary(folder, path.name)
    try:
        with temporary.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        try:
            temporary.unlink(missing_ok=True)
        finally:  # Ctrl-C, which is raised once, may fall into the first
            temporary.unlink(missing_ok=True)


def change(folder: Path) -> None:
    """Change what is in a folder, and back.

    A client of NFS remembers for some time what was not in a folder, until it changes that folder itself.

    Raises:
        WriteError: The folder cannot be written, or the disk is full.
    """
    temporary = _temporary(folder, "change")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
        finally:
            try:
                temporary.unlink(missing_ok=True)
            finally:  # as above
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _temporary(folder: Path, name: str) -> Path:
    """A name that no process uses; the number of one would not do: another machine may have the same."""
    return folder / f".{name}.{secrets.token_hex(4)}.tmp"
