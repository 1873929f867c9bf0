"""Which images, and in which order: the manifest. Needs no torch."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .config import DataConfig
from .errors import UserError

EXTENSIONS = frozenset(".jpg .jpeg .png .bmp .gif .tif .tiff .webp .ppm .pgm".split())


@dataclass(frozen=True)
class ImageSource:
    """One image: its id, its class (None where it is not known) and its file."""

    image_id: str
    label: int | None
    path: Path


@dataclass(frozen=True)
class Manifest:
    """All images of a data set in their seeded order.

    Attributes:
        name: Of the data set.
        images: Ordered by sha256("seed|image_id"): whatever the file system's order, and a smaller limit is a prefix.
        sha256: Over ids, sizes in bytes and seed, so that results of folders with other images never mix.
    """

    name: str
    images: tuple[ImageSource, ...]
    sha256: str

    def take(self, limit: int | None) -> tuple[ImageSource, ...]:
        """The first `limit` images, or all."""
        return self.images[:limit]


def read_manifest(config: DataConfig) -> Manifest:
    """List a data set.

    Raises:
        UserError: No such layout or root, no images there, or a limit below 1.
    """
    layouts = {"sample": _sample, "folder": _folder}
    if config.layout not in layouts:
        raise UserError(f"unknown data.layout {config.layout!r}; choices: {', '.join(layouts)}")
    if config.limit is not None and config.limit < 1:
        raise UserError(f"data.limit must be at least 1, found {config.limit}")
    images = layouts[config.layout](config)
    ordered = sorted(images, key=lambda image: hashlib.sha256(f"{config.seed}|{image.image_id}".encode()).digest())
    lines = [f"{image.image_id}\t{_size(image.path)}" for image in sorted(images, key=lambda image: image.image_id)]
    digest = hashlib.sha256("\n".join([str(config.seed), *lines]).encode()).hexdigest()
    return Manifest(config.name, tuple(ordered), digest)


def _sample(_config: DataConfig) -> list[ImageSource]:
    """foolbox's photographs, `imagenet_<nn>_<class>.jpg`; found without importing foolbox, which is slow."""
    package = find_spec("foolbox")
    if package is None or not package.submodule_search_locations:
        raise UserError("data=sample needs the package foolbox: pip install 'igos-bench[sample]'")
    paths = sorted(Path(package.submodule_search_locations[0], "data").glob("imagenet_*_*.jpg"))
    if not paths:
        raise UserError("foolbox is installed without its photographs: pip install --force-reinstall foolbox")
    return [ImageSource(path.stem, int(path.stem.rpartition("_")[2]), path) for path in paths]


def _folder(config: DataConfig) -> list[ImageSource]:
    """Every file below `data.root` that is named like an image.

    Labels come from the first-level folders where every image lies in one: ImageNet's index where all are its wnids,
    the number itself where all are numbers. In any other case there are none: an index in some other order would be
    a wrong label.
    """
    if config.root is None:
        raise UserError(f"data={config.name} needs a folder of images: data.root=FOLDER")
    root = Path(config.root).expanduser()
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise UserError(f"data.root={root} {found}: give a folder of images")
    paths, others = [], 0
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [*files, *folders]:
            if Path(name).suffix.lower() in EXTENSIONS and not name.startswith("."):
                paths.append(Path(folder, name))
            else:
                others += name in files
    if not paths:
        endings = " ".join(sorted(EXTENSIONS))
        raise UserError(f"data.root={root} holds no images ({others} other files); looked for {endings}")
    relative = [path.relative_to(root) for path in paths]
    ids = [os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace") for path in relative]
    classes = [path.parts[0] if len(path.parts) > 1 else "" for path in relative]
    labels = _labels(set(classes))
    return [ImageSource(i, labels.get(c), path) for i, c, path in zip(ids, classes, paths, strict=True)]


def _labels(classes: set[str]) -> dict[str, int]:
    if all(name.isdecimal() for name in classes):
        return {name: int(name) for name in classes}
    wnids = imagenet_wnids()
    return {name: wnids[name] for name in classes} if classes <= wnids.keys() else {}


def imagenet_wnids() -> dict[str, int]:
    """ImageNet's 1,000 wnids and their class indices, from the list that timm carries."""
    package = find_spec("timm")
    assert package is not None and package.submodule_search_locations  # a core dependency
    names = Path(package.submodule_search_locations[0], "data", "_info", "imagenet_synsets.txt").read_text().split()
    return {name: index for index, name in enumerate(names)}


def _size(path: Path) -> int:
    try:
        found = path.stat()
    except OSError:
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1
