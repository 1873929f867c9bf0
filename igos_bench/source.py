"""One image: its name, its class, and where its bytes are. Needs no torch."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .errors import ImageError


@dataclass(frozen=True)
class ImageSource:
    """One image.

    Attributes:
        image_id: Unique in its data set, printable, the same on every machine.
        label: ImageNet's class index, or None where it is not known.
        path: The file, or the tar that it lies in.
        span: In a tar, the offset of its first byte and its size in bytes; None where it is a file of its own.
    """

    image_id: str
    label: int | None
    path: Path
    span: tuple[int, int] | None = None

    def open(self) -> BinaryIO:
        """Open the encoded image, from any thread: a tar is opened anew each time, so no position is shared.

        Raises:
            ImageError: See `open_regular`; or the tar has become shorter, or cannot be read there.
        """
        file = open_regular(self.path)
        if self.span is None:
            return file
        offset, size = self.span
        with file:
            try:
                file.seek(offset)
                content = file.read(size)
            except OSError as error:
                raise ImageError(f"cannot be read from {self.path}: {error.strerror}") from error
        if len(content) < size:
            raise ImageError(f"truncated: {self.path} ends within it")
        return BytesIO(content)

    def head(self, count: int) -> bytes:
        """Its first bytes, of the encoded image; raises ImageError as `open` does."""
        with open_regular(self.path) as file:
            try:
                file.seek(self.span[0] if self.span else 0)
                return file.read(count if self.span is None else min(count, self.span[1]))
            except OSError as error:
                raise ImageError(f"cannot be read from {self.path}: {error.strerror}") from error


class Found(NamedTuple):
    """The images of a data set, in no order, with what can be said about it.

    Attributes:
        images: All of them; their labels are None where none are known.
        layout: What they were found as, for people.
        labels: Where the labels come from, for people; None where there are none.
    """

    images: list[ImageSource]
    layout: str
    labels: str | None


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; anything else could wait for ever, as a fifo does.

    Raises:
        ImageError: It is not a regular file, or may not be read.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path.open("rb")
    except FileNotFoundError:
        raise ImageError("a link to nothing" if path.is_symlink() else "no such file") from None
    except OSError as error:
        raise ImageError(f"cannot be opened: {error.strerror}") from error
    raise ImageError(f"not a regular file but a {'folder' if stat.S_ISDIR(mode) else 'fifo, socket or device'}")
