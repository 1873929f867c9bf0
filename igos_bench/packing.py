"""Packs the chunks of a run, range after range, while it and other processes go on. `packs` has what comes of it.

Whoever packs a range holds the lease of that range, and of each chunk whose loose files it packs. Under the first the
archives come into their places: no two processes write one. Under the others the loose files go: nobody can have
written one since it was read, and who has lost a chunk's lease meanwhile cannot take its files away. So what a chunk
has is there at every moment, loose, packed, or both, which is the same. After a kill in between, loose files are left,
and whoever packs next finds them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from .errors import cannot_write
from .lease import Lease, LeaseLostError, Leases
from .packs import ChunkFiles, range_name, range_of, read_file
from .results import RunDirectory, write_under


def loose_ranges(directory: RunDirectory) -> list[int]:
    """The first chunks of the ranges in which something is loose."""
    loose = (chunk for files in _kinds(directory) for chunk in files.listed()[0])
    return sorted({range_of(chunk)[0] for chunk in loose})


def pack_range(directory: RunDirectory, leases: Leases, first: int, tell: Callable[[str], None]) -> None:
    """Pack the loose files of the chunks of a range that are done, but of those that another process works on.

    Args:
        directory: Of the run; maps and timings are packed, and curves and rows under its protocol.
        leases: The run's.
        first: The first chunk of the range.
        tell: Called with a line for people where another process packs this range, and is waited for.

    Raises:
        UserError: The folder cannot be written, or the disk is full; what was there before is kept.
    """
    with leases.wait_for(range_name(first), tell) as lease:
        _pack(directory, leases, first, lease)


def pack_range_if_free(directory: RunDirectory, leases: Leases, first: int) -> None:
    """As `pack_range`, but of a range that another process packs nothing: that may be gone, and nobody waits for it."""
    if lease := leases.claim(range_name(first)):
        try:
            _pack(directory, leases, first, lease)
        finally:
            leases.release(lease)


def _pack(directory: RunDirectory, leases: Leases, first: int, lease: Lease) -> None:
    claimed: dict[int, Lease] = {}
    with suppress(LeaseLostError):
        try:
            for chunk in sorted(set().union(*(files.listed()[0] for files in _kinds(directory)))):
                if chunk in range_of(first) and (own := leases.claim(f"{chunk:06d}")):
                    claimed[chunk] = own
                    if not directory.read_rows(chunk):
                        leases.release(claimed.pop(chunk))
            for files in _kinds(directory):
                _write(files, first, [chunk for chunk in claimed if files.loose(chunk).exists()], lease)
            for chunk in list(claimed):
                with suppress(LeaseLostError):  # who has it now may have changed its files
                    for files in reversed(_kinds(directory)):
                        claimed[chunk].withdraw(files.loose(chunk))
                leases.release(claimed.pop(chunk))
        finally:
            for own in claimed.values():
                leases.release(own)


def _kinds(directory: RunDirectory) -> tuple[ChunkFiles, ...]:
    """In the order in which they are packed: the rows, which say that a chunk is done, come last, and go first."""
    return directory.maps, directory.curves, directory.timing, directory.records


def _write(files: ChunkFiles, first: int, chunks: list[int], lease: Lease) -> None:
    """Write the archive of a range: what it had, with the loose files of these chunks in the place of theirs."""
    path = files.archive(first)
    if not chunks:
        return
    try:
        if path.exists():  # a disk that fails now must not pass for an archive that has nothing
            with path.open("rb") as file:
                while file.read(2**20):
                    pass
    except OSError as error:
        raise cannot_write(path, error) from error
    loose = {chunk: partial(read_file, files.loose(chunk)) for chunk in chunks}
    write_under(lease, path, files.together({**files.members(first), **loose}))
