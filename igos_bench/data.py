"""Which images, and in which order: the manifest. Needs no torch."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .config import DataConfig
from .errors import ImageError, UserError, unknown
from .imagenet import find_imagenet
from .labels import imagenet_wnids, package_folder
from .paths import existing, is_folder
from .source import Found, ImageSource, open_regular

__all__ = ["EXTENSIONS", "ImageSource", "Manifest", "Read", "read_manifest", "read_once", "warn_of_others"]

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
LAYOUTS = ("sample", "folder", "imagenet")

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # what their files begin with; ImageNet has one PNG

WITNESSES = 100
"""Images of ImageNet whose sizes are looked at: all 50,000 would take minutes on a slow network disk."""

# What cannot be printed on one line, what is not UTF-8 (lone surrogates), and the backslash that escapes them.
_UNPRINTABLE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Manifest:
    """All images of a data set, in their order.

    Attributes:
        name: Of the data set, as in the configuration.
        images: Ordered by sha256 of "seed|image_id": no file system has a say, and a smaller limit is a prefix. With
            `data.list`, the images of the list in its order.
        sha256: Over the seed and all image ids (of a list: over them in its order), so that results on other images
            never mix. For a folder over every image's size in bytes too: two folders with the same ids and sizes count
            as the same data. For ImageNet over the first images' sizes too, which tell a resized copy from the
            original; it is the same in every layout, and with or without labels.
        layout: What the data set was found as, for people.
        labels: Where the labels come from, for people; None where there are none.
    """

    name: str
    images: tuple[ImageSource, ...]
    sha256: str
    layout: str
    labels: str | None

    def take(self, limit: int | None) -> tuple[ImageSource, ...]:
        """Return the first `limit` images; all of them where it is None or larger than the data set."""
        return self.images[:limit]

    def listing(self, limit: int | None) -> str:
        """The ids of `take(limit)`, one a line: what `data.list` reads, and its sha256 is that of the selection."""
        return "".join(f"{image.image_id}\n" for image in self.take(limit))


def read_manifest(config: DataConfig) -> Manifest:
    r"""List a data set without opening any of its images.

    `layout=sample` is the 20 photographs that foolbox carries: id = file stem, label = the class in the name.

    `layout=imagenet` is ImageNet's validation set as people have it, see `imagenet`: id = file name.

    `layout=folder` is every file below `root` that is named like an image, readable or not; hidden files are skipped.
    The id is the path relative to `root`, with `/` between its parts and `\` escapes for what cannot be printed.
    Where every image lies in a first-level folder, those folders are the labels if all of them are wnids (ImageNet's
    index) or all are decimal integers (that number). Otherwise there are no labels: class folders numbered in some
    other order would be wrong labels.

    Raises:
        UserError: The layout or the root does not exist, there are no images in it, the limit is below 1, the list
            names images that are not there, or there are labels but not for every image that is asked for.
    """
    if config.limit is not None and config.limit < 1:
        raise UserError(f"data.limit={config.limit} takes no images: give 1 or more, or null for all")
    if config.layout == "sample":
        found = _sample()
    elif config.layout == "imagenet":
        found = find_imagenet(config.root, config.labels)
    elif config.layout == "folder":
        found = _folder(config)
    else:
        raise UserError(unknown("data.layout", config.layout, LAYOUTS))

    if config.list is None:
        images = sorted(found.images, key=lambda image: _sha256(f"{config.seed}|{image.image_id}"))
        lines = [str(config.seed), *sorted(_identity(image, config.layout) for image in images)]
    else:
        images = _listed(config.list, found)
        lines = ["list", *(_identity(image, config.layout) for image in images)]
    if config.layout == "imagenet":
        lines += [str(_size(image)) for image in images[:WITNESSES]]
    manifest = Manifest(config.name, tuple(images), _sha256("\n".join(lines)), found.layout, found.labels)
    requested = manifest.take(config.limit)
    if found.labels and (bare := [image.image_id for image in requested if image.label is None]):
        raise UserError(
            f"the labels in {found.labels} do not fit: none for {len(bare):,} of {len(requested):,} images, such as "
            f"{bare[0]}; give the file that belongs to these images as data.labels=FILE"
        )
    return manifest


Read = Callable[[DataConfig], Manifest]


def read_once(*, look: bool = False) -> Read:
    """A `read_manifest` that reads each data set once; for the cells of one sweep, within which no folder changes.

    With `look`, for cells that will be run, it also looks at the requested images, see `warn_of_others`.
    """
    known: dict[str, Manifest] = {}

    def read(config: DataConfig) -> Manifest:
        key = repr(config)
        if key not in known:
            known[key] = read_manifest(config)
            if look and config.layout == "imagenet":
                warn_of_others(known[key].take(config.limit))
        return known[key]

    return read


def warn_of_others(images: Sequence[ImageSource]) -> None:
    """Warn of images that do not even begin like a JPEG or PNG, before hours are spent on the others.

    Every file is opened: that takes a while on a slow network disk, so only what is about to run does it.
    """

    def is_other(image: ImageSource) -> bool:
        try:
            return not image.head(len(PNG)).startswith((JPEG, PNG))
        except ImageError:
            return True

    with ThreadPoolExecutor(8) as pool:  # a slow network disk waits for several at once
        others = [image.image_id for image, other in zip(images, pool.map(is_other, images), strict=True) if other]
    if others:
        warnings.warn(
            f"{len(others):,} of {len(images):,} images are no JPEG, such as {others[0]}, and will fail: fetch them "
            "again, or leave them out with data.list=FILE, a file of the ids to take",
            stacklevel=3,
        )


def _identity(image: ImageSource, layout: str) -> str:
    """What of an image goes into the manifest's hash."""
    return f"{image.image_id}\t{_size(image)}" if layout == "folder" else image.image_id


def _listed(text: str, found: Found) -> list[ImageSource]:
    """The images that a file names, an id a line, in its order."""
    path = existing("data.list", text, "a file with one image id a line")
    try:
        with open_regular(path) as file:
            ids = [line for line in file.read().decode("utf-8-sig").splitlines() if line.strip()]
    except (ImageError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.list={text} cannot be read as a text file with one image id a line: {error}") from error
    known = {image.image_id: image for image in found.images}
    example = f"ids here look like {found.images[0].image_id}"
    if not ids:
        raise UserError(f"data.list={text} is empty: write one image id a line; {example}")
    if missing := [image_id for image_id in ids if image_id not in known]:
        raise UserError(
            f"data.list={text} names {len(missing):,} images that are not there, such as {missing[0]!r}, of "
            f"{len(ids):,}: looked in {found.layout}; {example}"
        )
    if len(set(ids)) < len(ids):
        twice, count = Counter(ids).most_common(1)[0]
        raise UserError(f"data.list={text} names {twice!r} {count} times: name every image once")
    return [known[image_id] for image_id in ids]


def _sample() -> Found:
    folder = package_folder("foolbox", "pip install 'igos-bench[sample]'") / "data"
    paths = list(folder.glob("imagenet_*_*.jpg"))
    if not paths:
        raise UserError(f"{folder} has no imagenet_<nn>_<class>.jpg: pip install --force-reinstall foolbox")
    images = [ImageSource(path.stem, int(path.stem.rpartition("_")[2]), path) for path in paths]
    return Found(images, f"the photographs in {folder}", "their file names")


def _folder(config: DataConfig) -> Found:
    if not config.root:
        raise UserError(f"data={config.name} needs data.root=FOLDER, the folder that holds the images")
    root = existing("data.root", config.root, "the folder that holds the images")
    if not is_folder(root):
        raise UserError(f"data.root={config.root} is a file, not a folder: give the folder that holds the images")
    names: list[Path] = []
    others: Counter[str] = Counter()
    for path in _walk(root):
        if path.suffix.lower() in EXTENSIONS:
            names.append(path.relative_to(root))
        else:
            others[path.suffix.lower() or "without an ending"] += 1
    if not names:
        found = _commonest(others) or "no files at all"
        raise UserError(
            f"data.root={config.root} holds no images: looked at all depths for {' '.join(EXTENSIONS)}, found {found}"
        )
    if others:
        warnings.warn(
            f"left out of data.root={config.root}, having no image's ending: {_commonest(others)}", stacklevel=3
        )
    label = _labels({name.parts[0] if len(name.parts) > 1 else "" for name in names})
    images = [ImageSource(_image_id(name), label.get(name.parts[0]), root / name) for name in names]
    return Found(images, f"all images below {root}", "the class folders" if label else None)


def _commonest(endings: Counter[str]) -> str:
    """Of so many files by their endings, the five commonest."""
    commonest = sorted(endings.items(), key=lambda item: (-item[1], item[0]))[:5]
    return ", ".join(f"{count} {ending}" for ending, count in commonest)


def _walk(root: Path) -> Iterator[Path]:
    """Everything below a folder but folders and hidden names. Links are followed, though not in a circle.

    A folder that is named like an image counts as one, to be reported as an image that cannot be read.
    """
    left: list[tuple[Path, frozenset[Path]]] = [(root, frozenset())]
    while left:
        folder, ancestors = left.pop()
        try:
            ancestors |= {folder.resolve()}
            with os.scandir(folder) as entries:
                paths = [Path(entry.path) for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            raise UserError(
                f"{folder} cannot be listed: {error.strerror}; mend it or move it out of data.root"
            ) from error
        for path in paths:
            if path.suffix.lower() in EXTENSIONS or not is_folder(path):
                yield path
            elif path.resolve() not in ancestors:
                left.append((path, ancestors))


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


def _size(image: ImageSource) -> int | None:
    """Bytes of an image; None where it is no regular file, which will not be opened."""
    if image.span is not None:
        return image.span[1]
    try:
        found = image.path.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
