"""Which images, and in which order: the manifest. Needs no torch."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from .config import DataConfig
from .errors import ImageError, UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

# What cannot be printed on one line, what is not UTF-8 (lone surrogates), and the backslash that escapes them.
_UNPRINTABLE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class ImageSource:
    """One image.

    Attributes:
        image_id: Unique in its data set, printable, the same on every machine.
        label: ImageNet's class index, or None where it is not known.
        path: The file.
    """

    image_id: str
    label: int | None
    path: Path

    def open(self) -> BinaryIO:
        """Open the encoded image; see `open_regular`."""
        return open_regular(self.path)


@dataclass(frozen=True)
class Manifest:
    """All images of a data set, in their seeded order.

    Attributes:
        name: Of the data set, as in the configuration.
        images: Ordered by sha256 of "seed|image_id": no file system has a say, and a smaller limit is a prefix.
        sha256: Over the seed and every image's id and size in bytes (the sample: ids alone), so that results on
            other images never mix. Two folders with the same ids and sizes count as the same data.
    """

    name: str
    images: tuple[ImageSource, ...]
    sha256: str

    def take(self, limit: int | None) -> tuple[ImageSource, ...]:
        """Return the first `limit` images; all of them where it is None or larger than the data set."""
        return self.images[:limit]


def read_manifest(config: DataConfig) -> Manifest:
    r"""List a data set without opening any of its images.

    `layout=sample` is the 20 photographs that foolbox carries: id = file stem, label = the class in the name.

    `layout=folder` is every file below `root` that is named like an image, readable or not; hidden files are skipped.
    The id is the path relative to `root`, with `/` between its parts and `\` escapes for what cannot be printed.
    Where every image lies in a first-level folder, those folders are the labels if all of them are wnids (ImageNet's
    index) or all are decimal integers (that number). Otherwise there are no labels: class folders numbered in some
    other order would be wrong labels.

    Raises:
        UserError: The layout or the root does not exist, there are no images in it, or the limit is below 1.
    """
    if config.limit is not None and config.limit < 1:
        raise UserError(f"data.limit={config.limit} takes no images: give 1 or more, or null for all")
    if config.layout == "sample":
        images = _sample()
        lines = sorted(image.image_id for image in images)
    elif config.layout == "folder":
        images = _folder(config)
        lines = sorted(f"{image.image_id}\t{_size(image.path)}" for image in images)
    else:
        raise UserError(f"data.layout={config.layout} is not known: choose sample or folder")
    return Manifest(
        config.name,
        tuple(sorted(images, key=lambda image: _sha256(f"{config.seed}|{image.image_id}"))),
        _sha256("\n".join([str(config.seed), *lines])),
    )


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


def imagenet_wnids() -> dict[str, int]:
    """Return ImageNet's 1,000 wnids with their class indices, from timm's list, without the seconds of importing it."""
    path = _package_folder("timm", "pip install timm") / "data" / "_info" / "imagenet_synsets.txt"
    return {wnid: index for index, wnid in enumerate(path.read_text(encoding="utf-8").split())}


def _sample() -> list[ImageSource]:
    folder = _package_folder("foolbox", "pip install 'igos-bench[sample]'") / "data"
    paths = list(folder.glob("imagenet_*_*.jpg"))
    if not paths:
        raise UserError(f"{folder} has no imagenet_<nn>_<class>.jpg: pip install --force-reinstall foolbox")
    return [ImageSource(path.stem, int(path.stem.rpartition("_")[2]), path) for path in paths]


def _package_folder(package: str, remedy: str) -> Path:
    """Where a package is installed; it is not imported."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {package} is not installed: {remedy}")
    return Path(spec.submodule_search_locations[0])


def _folder(config: DataConfig) -> list[ImageSource]:
    if not config.root:
        raise UserError(f"data={config.name} needs data.root=FOLDER, the folder that holds the images")
    root = Path(os.path.expanduser(config.root))  # noqa: PTH111 - pathlib's raises for an unknown ~user
    if not _is_folder(root):
        found = "is a file, not a folder" if os.path.lexists(root) else "does not exist"
        raise UserError(f"data.root={config.root} {found}: give the folder that holds the images")
    names: list[Path] = []
    others: Counter[str] = Counter()
    for path in _walk(root, frozenset()):
        if path.suffix.lower() in EXTENSIONS:
            names.append(path.relative_to(root))
        else:
            others[path.suffix.lower() or "without an ending"] += 1
    if not names:
        commonest = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:5]
        found = ", ".join(f"{count} {ending}" for ending, count in commonest) or "no files at all"
        raise UserError(
            f"data.root={config.root} holds no images: looked at all depths for {' '.join(EXTENSIONS)}, found {found}"
        )
    label = _labels({name.parts[0] if len(name.parts) > 1 else "" for name in names})
    return [ImageSource(_image_id(name), label.get(name.parts[0]), root / name) for name in names]


def _walk(folder: Path, ancestors: frozenset[Path]) -> Iterator[Path]:
    """Everything below a folder but folders and hidden names. Links are followed, though not in a circle.

    A folder that is named like an image counts as one, to be reported as an image that cannot be read.
    """
    ancestors |= {folder.resolve()}
    try:
        with os.scandir(folder) as entries:
            paths = [Path(entry.path) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror}; mend it or move it out of data.root") from error
    for path in paths:
        if path.suffix.lower() in EXTENSIONS or not _is_folder(path):
            yield path
        elif path.resolve() not in ancestors:
            yield from _walk(path, ancestors)


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - pathlib's raises where a parent may not be entered


def _labels(folders: set[str]) -> dict[str, int]:
    """The class of every first-level folder ("" stands for none), or nothing; see `read_manifest`."""
    if all(re.fullmatch("[0-9]+", folder) for folder in folders):
        return {folder: int(folder) for folder in folders}
    if all(re.fullmatch("n[0-9]{8}", folder) for folder in folders) and folders <= (wnids := imagenet_wnids()).keys():
        return wnids
    return {}


def _image_id(name: Path) -> str:
    # By way of bytes: the id must not depend on the locale that Python decoded the name with.
    text = os.fsencode(name.as_posix()).decode("utf-8", "surrogateescape")
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def _size(path: Path) -> int | None:
    """Bytes in a regular file; None for anything else, which will not be opened."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
