"""ImageNet's validation images in the layouts that people have them in. Needs no torch.

| layout | `data.root` |
|---|---|
| `ILSVRC2012_img_val.tar`, read in place | the tar, or the folder it is in |
| wnid folders (n01440764, ...) | the folder that holds them, or holds them as `val` |
| flat folder of ILSVRC2012_val_*.JPEG | that folder, or one that holds it as `val` |
| Kaggle's tree, ILSVRC/Data/CLS-LOC/val | its top, where LOC_val_solution.csv is |

In each an image's id is the name of its file, so that the same images are selected from all of them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .errors import UserError
from .labels import REMEDY, find_labels, imagenet_wnids, read_labels
from .paths import existing
from .source import Found, ImageSource
from .tar import tar_members

COUNT = 50_000
TAR = "ILSVRC2012_img_val.tar"
FOLDERS = ("", "val", "ILSVRC/Data/CLS-LOC/val")
NAME = re.compile(r"ILSVRC2012_val_[0-9]{8}\.JPEG")
WNID = re.compile("n[0-9]{8}")
WANTED = f"the folder that holds ImageNet's validation images, or {TAR}"


class _Layout(NamedTuple):
    kind: str
    path: Path


def find_imagenet(root: str | None, labels: str | None) -> Found:
    """Find the layout in `root` and list its images, without opening any of them.

    Args:
        root: See the module.
        labels: A file for `read_labels`. None looks for one in the root, and beside it where the root itself is the
            tar or the folder of the images; wnid folders need none.

    Raises:
        UserError: No layout or two in this root, a damaged tar, an image that is there twice, labels that do not fit.
    """
    if not root:
        raise UserError(f"data=imagenet needs data.root=PATH, {WANTED}")
    top = existing("data.root", root, WANTED)
    layout = _detect(top)
    images, described = _read_tar(layout.path) if layout.kind == "tar" else _read_folder(layout)
    if not images:
        raise UserError(f"{layout.path} holds no ILSVRC2012_val_*.JPEG but {described}; give {WANTED} as data.root")
    twice = [image_id for image_id, n in Counter(image.image_id for image in images).items() if n > 1]
    if twice:
        raise UserError(f"{layout.path} has {len(twice)} images twice, such as {twice[0]}: remove one of each")
    if labels is None:
        if layout.kind == "wnid":
            return Found(images, described, "the wnid folders")
        beside = find_labels([top, top.parent] if layout.path == top else [top])
        if beside is None:
            return Found(images, described, None)
        labels = str(beside)
    return Found(_labelled(images, read_labels(labels), labels), described, labels)


def _detect(root: Path) -> _Layout:
    found: dict[tuple[str, Path], _Layout] = {}  # by what links lead to: one folder under two names is one layout
    try:
        if root.is_file():
            return _Layout("tar", root)
        if (root / TAR).is_file():
            found["tar", root] = _Layout("tar", root / TAR)
        for name in FOLDERS:
            folder = root / name
            if folder.is_dir():
                for kind in _kinds(folder):
                    found.setdefault((kind, folder.resolve()), _Layout(kind, folder))
        names = sorted(entry.name for entry in root.iterdir())
    except OSError as error:
        raise UserError(f"{error.filename} cannot be listed: {error.strerror}") from error
    if not found:
        raise UserError(
            f"{root} holds neither {TAR}, nor ILSVRC2012_val_*.JPEG or wnid folders (n01440764, ...), there or in "
            f"{' or '.join(FOLDERS[1:])}; found {_few(names)}. Give {WANTED} as data.root; other images are data=folder"
        )
    if len(found) > 1:
        words = {"tar": "the tar", "flat": "flat images in", "wnid": "wnid folders in"}
        several = " and ".join(f"{words[kind]} {path}" for kind, path in found.values())
        raise UserError(f"{root} holds ImageNet more than once: {several}. Give the one you mean as data.root")
    return next(iter(found.values()))


def _kinds(folder: Path) -> list[str]:
    wnids = imagenet_wnids()
    kinds = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if NAME.fullmatch(entry.name):
                kinds.add("flat")
            elif entry.name in wnids and entry.is_dir():
                kinds.add("wnid")
    return sorted(kinds)


def _read_tar(path: Path) -> tuple[list[ImageSource], str]:
    members = tar_members(path)
    images = [
        ImageSource(name, None, path, (member.offset, member.size))
        for member in members
        if NAME.fullmatch(name := PurePosixPath(member.name).name)
    ]
    return images, f"the tar {path}, read in place" if images else _few([member.name for member in members])


def _read_folder(layout: _Layout) -> tuple[list[ImageSource], str]:
    """Of a flat folder, or of wnid folders, which give the labels."""
    wnids = imagenet_wnids()
    images: list[ImageSource] = []
    others: list[str] = []

    def add(folder: Path, label: int | None) -> None:
        for name in os.listdir(folder):  # noqa: PTH208 - names, not paths; there are 50,000
            if NAME.fullmatch(name):
                images.append(ImageSource(name, label, folder / name))
            elif len(others) < 3:  # enough to say what is there instead
                others.append(name)

    try:
        if layout.kind == "flat":
            add(layout.path, None)
            return images, f"a flat folder, {layout.path}"
        folders = sorted(path for path in layout.path.iterdir() if WNID.fullmatch(path.name) and path.is_dir())
        if strange := [path.name for path in folders if path.name not in wnids]:
            raise UserError(
                f"{layout.path} has wnid folders that are none of ILSVRC 2012's 1,000 classes: {_few(strange)}; "
                f"move them away, or give {WANTED} as data.root"
            )
        for path in folders:
            add(path, wnids[path.name])
    except OSError as error:
        raise UserError(f"{error.filename} cannot be listed: {error.strerror}") from error
    return images, f"{len(folders):,} wnid folders in {layout.path}" if images else _few(sorted(others))


def _labelled(images: list[ImageSource], labels: dict[str, int], file: str) -> list[ImageSource]:
    wrong = [image for image in images if image.label is not None and labels.get(image.image_id) != image.label]
    if wrong:
        image = wrong[0]
        raise UserError(
            f"data.labels={file} and the wnid folders disagree about {len(wrong):,} of {len(images):,} images, such as "
            f"{image.image_id} ({labels.get(image.image_id)} and {image.label}): leave out data.labels, or {REMEDY}"
        )
    return [ImageSource(image.image_id, labels.get(image.image_id), image.path, image.span) for image in images]


def _few(names: list[str]) -> str:
    return (", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")) or "nothing"
