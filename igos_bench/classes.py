"""Names of ImageNet's classes, from the lists that timm carries, for networks whose classes those are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from .labels import CLASSES, imagenet_wnids, package_folder

IMAGENETS = ("sample", "imagenet")
"""Layouts whose images are ImageNet's: who gives a network weights of their own and explains these has its classes."""


def has_imagenet_classes(run: Mapping[str, Any]) -> bool:
    """Whether the classes of a run's network are known to be ImageNet's 1,000, by what its run.json says.

    Those of pretrained weights are, where the library's have 1,000 outputs: some of timm's have 21,841, in another
    order. Random weights have no classes; those from a file may have any, unless the images are ImageNet's.
    """
    config = run.get("config", {})
    model, layout = config.get("model", {}), config.get("data", {}).get("layout")
    weights = model.get("weights")
    if weights is None or (weights != "pretrained" and layout not in IMAGENETS):
        return False
    return _outputs(str(model.get("library")), str(model.get("architecture"))) == CLASSES


@cache
def _outputs(library: str, architecture: str) -> int | None:
    """How many classes the library's weights of a network tell apart; None where it is not known here."""
    if library == "torchvision":
        return CLASSES  # of all its classifiers
    if library != "timm":
        return None
    import timm

    try:
        found = timm.models.get_pretrained_cfg(architecture)
    except RuntimeError:  # weights that another version had
        return None
    return found.num_classes if found else None


@cache
def class_names() -> dict[int, str]:
    """Class index -> the first of its words, such as 471 -> cannon."""
    path = package_folder("timm", "pip install timm") / "data" / "_info" / "imagenet_synset_to_lemma.txt"
    words = dict(line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return {index: words[wnid].split(",")[0].strip() for wnid, index in imagenet_wnids().items() if wnid in words}


def class_title(index: float, *, is_imagenets: bool) -> str:
    """A class in print: its name where it is one of ImageNet's, else its number."""
    name = class_names().get(int(index)) if is_imagenets else None
    return name or f"class {index:.0f}"
