"""Names of ImageNet's classes, from the lists that timm carries."""

from __future__ import annotations

from functools import cache

from .labels import imagenet_wnids, package_folder

NAMED = ("sample", "imagenet")
"""Layouts whose images are ImageNet's; the classes of other images have numbers alone."""


@cache
def class_names() -> dict[int, str]:
    """Class index -> the first of its words, such as 471 -> cannon."""
    path = package_folder("timm", "pip install timm") / "data" / "_info" / "imagenet_synset_to_lemma.txt"
    words = dict(line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return {index: words[wnid].split(",")[0].strip() for wnid, index in imagenet_wnids().items() if wnid in words}


def class_title(index: float, layout: str) -> str:
    """A class in print: its name where the layout of the data is one of ImageNet's, else its number."""
    name = class_names().get(int(index)) if layout in NAMED else None
    return name or f"class {index:.0f}"
