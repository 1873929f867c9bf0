"""Where the members of a tar lie in it, so that they are read in place. Needs no torch."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .errors import UserError
from .kept import keep, recall

VERSION = 2  # of the index file
BLOCK = 512
LARGEST_PADDING = 2**20  # tar pads to whole records, of 10 kB unless told otherwise


class Member(NamedTuple):
    """A regular file in a tar: `offset` is that of its first byte, `size` is in bytes."""

    name: str
    offset: int
    size: int


def tar_members(path: Path) -> list[Member]:
    """List the regular files of an uncompressed tar; folders and sparse files are left out.

    Reading all headers of a large tar takes a while, so the list is kept in the user's cache folder, under the tar's
    resolved path, and used again as long as the tar's size and time of modification are the same.

    Raises:
        UserError: It cannot be read, is no uncompressed tar, is truncated or damaged, or has a member that
            `refuse_dangerous` refuses.
    """
    try:
        path = path.resolve()
        state = path.stat()
        described = {"version": VERSION, "path": str(path), "size": state.st_size, "mtime_ns": state.st_mtime_ns}
        index = _index_name(path)
        members = _recall(index, described)
        if members is None:
            members = _scan(path, state.st_size)
            keep(index, described, {"members": members}, "the index of the tar")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    return members


def _scan(path: Path, size: int) -> list[Member]:
    members: list[Member] = []
    last = "its beginning"
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                refuse_dangerous(path, member)
                last = member.name
                if member.isreg() and not member.issparse():
                    members.append(Member(member.name, member.offset_data, member.size))
            # tarfile takes a damaged header for the end. The true one is a block of zeros, then padding alone.
            end = tar.offset
            file.seek(end)
            mark = file.read(BLOCK)
    except tarfile.TarError as error:
        if not members:
            raise UserError(f"{path} is no uncompressed tar ({error}): unpack it, or fetch it again") from error
        raise UserError(f"{path} is truncated within {last}, {size:,} bytes: fetch it again") from error
    if len(mark) < BLOCK:
        raise UserError(f"{path} is truncated after {last}, {size:,} bytes: fetch it again")
    if any(mark) or size - end > LARGEST_PADDING:
        raise UserError(f"{path} is damaged after {last}, at byte {end:,} of {size:,}: fetch it again")
    return members


def refuse_dangerous(path: Path, member: tarfile.TarInfo) -> None:
    """Raise UserError for a member that would do more than lie below the folder that it is unpacked into.

    Nothing is ever unpacked here; but a tar that tries this is not the one that it is taken for.
    """
    parts = PurePosixPath(member.name)
    if parts.is_absolute() or ".." in parts.parts:
        raise UserError(
            f"{path} has a member {member.name!r}, outside of where it would be unpacked: do not use this tar"
        )
    if not (member.isreg() or member.isdir()):
        kind = f"a link to {member.linkname!r}" if member.issym() or member.islnk() else "a device or fifo"
        raise UserError(f"{path} has a member {member.name!r} that is {kind}, no file or folder: do not use this tar")


def _index_name(path: Path) -> str:
    return f"{path.stem}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"


def _recall(index: str, described: dict[str, object]) -> list[Member] | None:
    """The members from the index, or None where there is none, or it is of another tar or damaged."""
    try:
        members = (recall(index, described) or {})["members"]
        return [Member(str(name), int(offset), int(size)) for name, offset, size in members]
    except (ValueError, KeyError, TypeError):
        return None
