"""The files that the chunks of a run have of one kind, its maps say: loose, a file a chunk, or packed by the range.

    maps/000203.npz             of chunk 203, loose
    maps/000200-000399.zip      of chunks 200 to 399, packed

A file system shared by many counts files, and 50,000 images in chunks of ten would leave 20,000. An archive is not
compressed further and bears no date, so that the same chunks give the same bytes.

A loose file wins over what an archive has of its chunk. So a chunk that is computed again is written loose, to be
packed later; so a file of rows that has none withdraws those that are packed; and so nothing changes for a reader while
files are packed: an archive comes into its place before the files in it go. Who reads looks for loose files first, and
only then into the archive, to find in one what has just left the other.
"""

from __future__ import annotations

import os
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import BadZipFile

RANGE = 200
"""Chunks that are packed together: of 50,000 images, in tens, 25 archives of a kind, with up to 400 MB of maps each."""

Stamp = tuple[int, ...]
"""Inode and time of a file."""

DAMAGED = (
    *(OSError, BadZipFile, EOFError, RuntimeError, zlib.error, struct.error),
    *(ValueError, KeyError, TypeError, AttributeError),
)
"""What reading an archive raises that is not there, torn or made up."""


class File(NamedTuple):
    """What a chunk has.

    Attributes:
        content: The bytes of its loose file.
        stamp: Of that file, which it keeps when it is packed.
        packed: What the archive says of it, a `summary` of rows and more; None where it is loose.
    """

    content: bytes
    stamp: Stamp
    packed: Mapping[str, Any] | None = None


Source = Callable[[], File | None]
"""What reads a file when it is called; None where it is damaged."""


class ChunkFiles(ABC):
    """The files of one kind, in one folder."""

    def __init__(self, folder: Path, suffix: str) -> None:
        """`suffix` is that of a loose file."""
        self.folder = folder
        self.suffix = suffix

    def loose(self, chunk: int) -> Path:
        """The chunk's own file, there or not."""
        return self.folder / f"{chunk:06d}{self.suffix}"

    def archive(self, chunk: int) -> Path:
        """The archive of the chunk's range, there or not."""
        return self.folder / f"{range_name(chunk)}.zip"

    def place(self, chunk: int) -> Path:
        """The file that has what there is of the chunk, or would have it."""
        is_packed = self.archive(chunk).exists() and not self.loose(chunk).exists()
        return self.archive(chunk) if is_packed else self.loose(chunk)

    def is_packed(self, chunk: int) -> bool:
        """Whether the archive, if it is whole, has something of the chunk."""
        return chunk in self.packed(chunk)

    def read(self, chunk: int) -> bytes | None:
        """The bytes of the chunk's file; None where there are none, or they are damaged."""
        try:
            return self.loose(chunk).read_bytes()
        except FileNotFoundError:
            found = self._file(self.archive(chunk), chunk)
            return found.content if found else None
        except OSError:
            return None

    def listed(self) -> tuple[set[int], set[int]]:
        """Which chunks have a loose file, and the first chunks of the ranges that have an archive; opens none."""
        loose, archives = set(), set()
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 - names are all that is needed, of very many
        except OSError:
            names = []
        for name in names:
            stem, suffix = os.path.splitext(name)  # noqa: PTH122
            if suffix == self.suffix and stem.isdecimal():
                loose.add(int(stem))
            elif suffix == ".zip" and (first := stem.partition("-")[0]).isdecimal() and stem == range_name(int(first)):
                archives.add(int(first))
        return loose, archives

    def chunks(self) -> list[int]:
        """All chunks that have something, in their order."""
        loose, archives = self.listed()
        return sorted(loose.union(*(self.packed(first) for first in archives)))

    def packed(self, chunk: int) -> Mapping[int, Any]:
        """Chunk -> what the archive's directory says of it; empty where it is not there, or damaged."""
        path = self.archive(chunk)
        try:
            return self._directory(path, file_stamp(path))
        except DAMAGED:
            return {}

    @abstractmethod
    def _directory(self, path: Path, stamp: Stamp | None) -> Mapping[int, Any]:
        """See `packed`; raises where the archive is damaged."""

    def members(self, chunk: int) -> dict[int, Source]:
        """Chunk -> what reads its file from the archive of this chunk's range."""
        return {member: partial(self._file, self.archive(chunk), member) for member in self.packed(chunk)}

    @abstractmethod
    def _file(self, path: Path, chunk: int) -> File | None:
        """What an archive has of a chunk; None where it is damaged."""

    @abstractmethod
    def together(self, chunks: Mapping[int, Source]) -> Callable[[IO[bytes]], None]:
        """What writes an archive of these chunks, each of which is read when its turn comes."""


def range_of(chunk: int) -> range:
    """The chunks that are packed together with this one, and it."""
    first = chunk - chunk % RANGE
    return range(first, first + RANGE)


def range_name(chunk: int) -> str:
    """The name of a chunk's range, which its archives and its lease bear."""
    return f"{range_of(chunk)[0]:06d}-{range_of(chunk)[-1]:06d}"


def file_stamp(path: Path) -> Stamp | None:
    """Of a file; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns


def read_file(path: Path) -> File:
    """A loose file; raises OSError."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        return File(file.read(), (status.st_ino, status.st_mtime_ns))
