"""Chunks' files of arrays, loose or packed, see `packs`: an archive has them as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile, ZipInfo

from .packs import DAMAGED, ChunkFiles, File, Source, Stamp, file_stamp


class ArrayFiles(ChunkFiles):
    """Of arrays: an archive has each chunk's .npz, which is compressed and has sums of its own."""

    def _directory(self, path: Path, stamp: Stamp | None) -> Mapping[int, Any]:
        return _arrays(path, stamp)[1]

    def _file(self, path: Path, chunk: int) -> File | None:
        try:
            archive, names = _arrays(path, file_stamp(path))
            return File(archive.read(names[chunk]), (), packed={})
        except DAMAGED:
            return None

    def together(self, chunks: Mapping[int, Source]) -> Callable[[IO[bytes]], None]:
        """As they are."""

        def write(file: IO[bytes]) -> None:
            with ZipFile(file, "w") as archive:
                for chunk in sorted(chunks):
                    if found := chunks[chunk]():
                        archive.writestr(ZipInfo(self.loose(chunk).name), found.content)

        return write


# An archive is replaced, never changed: what was read of one holds as long as its stamp does.


@lru_cache(maxsize=4)
def _arrays(path: Path, stamp: Stamp | None) -> tuple[ZipFile, dict[int, str]]:
    archive = ZipFile(path)
    return archive, {int(name.partition(".")[0]): name for name in archive.namelist()}
