"""Chunks' files of rows, loose or packed, see `packs`: an archive has them in one CSV.

rows.csv      all of them, below one header: to be read at once
index.json    for each chunk, in their order, how many bytes of it are its rows, the stamp of the file that they were
in, and what they come to
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile, ZipInfo

from .formats import Row, csv_bytes, rows_of
from .packs import DAMAGED, ChunkFiles, File, Source, Stamp, file_stamp, range_of, read_file


class RowFiles(ChunkFiles):
    """Of rows: an archive has them all in one CSV."""

    def __init__(self, folder: Path, columns: Sequence[str], summary: Callable[[list[Row]], Mapping[str, Any]]) -> None:
        """`columns` are those of each file; `summary` makes of a chunk's rows what an archive is to say of it."""
        super().__init__(folder, ".csv")
        self.columns = columns
        self.header = csv_bytes([], columns)
        self._keys = frozenset({"bytes", "stamp", *summary([])})
        self.summary = summary

    def stamp(self, chunk: int) -> Stamp | None:
        """What changes whenever the chunk's rows are committed, and not when they are packed; None without a file."""
        if stamp := file_stamp(self.loose(chunk)):
            return stamp
        packed = self.packed(chunk).get(chunk)
        return tuple(packed["stamp"]) if packed else None

    def files(self, wanted: Iterable[int] | None = None) -> Iterator[tuple[int, list[tuple[int, File]]]]:
        """Range after range, its first chunk and the files of its chunks in their order; a damaged archive has none.

        Of `wanted` chunks alone, where it is given: no loose file of others is opened, and no archive without any.
        """
        chosen = None if wanted is None else frozenset(wanted)
        for first, loose, is_archive in self._ranges(chosen):
            packed = self._unpacked(first) if is_archive else {}
            yield first, [(i, f) for i, f in sorted({**packed, **loose}.items()) if chosen is None or i in chosen]

    def summaries(self) -> Iterator[Mapping[str, Any]]:
        """The `summary` of every chunk; no archive's rows are read."""
        for first, loose, is_archive in self._ranges():
            yield from (self.summary(rows_of(file.content, self.columns) or []) for file in loose.values())
            yield from (said for chunk, said in self.packed(first).items() if is_archive and chunk not in loose)

    def state(self) -> list[tuple[str, Stamp | None]]:
        """What changes with whatever is committed or packed."""
        loose, archives = self.listed()
        paths = [*map(self.loose, sorted(loose)), *map(self.archive, sorted(archives))]
        return [(path.name, file_stamp(path)) for path in paths]

    def _ranges(self, wanted: frozenset[int] | None = None) -> Iterator[tuple[int, dict[int, File], bool]]:
        """Range after range, its first chunk, its loose files, and whether it has an archive too; see `files`."""
        chunks, archives = self.listed()
        if wanted is not None:
            chunks &= wanted
            archives &= {range_of(chunk)[0] for chunk in wanted}
        ranges: dict[int, list[int]] = {first: [] for first in archives}
        for chunk in sorted(chunks):
            ranges.setdefault(range_of(chunk)[0], []).append(chunk)
        for first, listed in sorted(ranges.items()):
            loose = {}
            for chunk in listed:
                try:
                    loose[chunk] = read_file(self.loose(chunk))
                except FileNotFoundError:  # it has been packed since
                    archives.add(first)
                except OSError:
                    loose[chunk] = File(b"", ())
            yield first, loose, first in archives

    def _unpacked(self, chunk: int) -> Mapping[int, File]:
        """Chunk -> what the archive of this chunk's range has of it; empty where it is not there, or damaged."""
        path = self.archive(chunk)
        try:
            return _cut(path, file_stamp(path), self._keys)
        except DAMAGED:
            return {}

    def is_damaged(self, chunk: int) -> bool:
        """Whether the archive is there and its rows cannot be read."""
        return self.archive(chunk).exists() and not self._unpacked(chunk)

    def _directory(self, path: Path, stamp: Stamp | None) -> Mapping[int, Any]:
        return _index(path, stamp, self._keys)

    def _file(self, path: Path, chunk: int) -> File | None:
        return self._unpacked(chunk).get(chunk)

    def together(self, chunks: Mapping[int, Source]) -> Callable[[IO[bytes]], None]:
        """In one, those alone that are whole."""

        def write(file: IO[bytes]) -> None:
            index: dict[int, Any] = {}
            parts = [self.header]
            for chunk in sorted(chunks):
                if (found := chunks[chunk]()) and (rows := rows_of(found.content, self.columns)):
                    parts.append(found.content.removeprefix(self.header))
                    index[chunk] = {"bytes": len(parts[-1]), "stamp": found.stamp, **self.summary(rows)}
            with ZipFile(file, "w") as archive:
                archive.writestr(ZipInfo("rows.csv"), b"".join(parts))
                archive.writestr(ZipInfo("index.json"), json.dumps(index))

        return write


# An archive is replaced, never changed: what was read of one holds as long as its stamp does.


@lru_cache(maxsize=4)
def _index(path: Path, stamp: Stamp | None, keys: frozenset[str]) -> dict[int, Any]:
    with ZipFile(path) as archive:
        return _read_index(archive, keys)


@lru_cache(maxsize=2)
def _cut(path: Path, stamp: Stamp | None, keys: frozenset[str]) -> dict[int, File]:
    with ZipFile(path) as archive:  # both of one: it may have been replaced since its stamp was taken
        rows, index = archive.read("rows.csv"), _read_index(archive, keys)
    header = rows[: rows.index(b"\n") + 1]
    start, found = len(header), {}
    for chunk, said in index.items():
        found[chunk] = File(header + rows[start : start + said["bytes"]], tuple(said["stamp"]), packed=said)
        start += said["bytes"]
    if start != len(rows):
        raise BadZipFile("the index is of other rows")
    return found


def _read_index(archive: ZipFile, keys: frozenset[str]) -> dict[int, Any]:
    found = {int(chunk): said for chunk, said in json.loads(archive.read("index.json")).items()}
    if not all(said.keys() >= keys for said in found.values()):
        raise BadZipFile("the index is of other rows")
    return found
