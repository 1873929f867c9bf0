"""What the page knows of every image in every cell before any picture is loaded, and the files with the pictures."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import write_atomically
from ..cells import GROUP, Cell
from ..classes import class_names, has_imagenet_classes
from ..config import INPUT_SIZE
from ..errors import ImageError, one_line
from ..explained import baseline_of, hits_of
from ..formats import read_json
from ..layout import KINDS, title
from ..marks import signs
from ..perturb import Baseline
from ..photographs import Photographs, read_photograph
from ..source import ImageSource
from ..stored import StoredCell
from .pictures import cell_content, photograph_content, side_file, thinned, thinned_hits


@dataclass
class Shown:
    """An image of the gallery; its pictures are in `<number>.js`, from the `cells` of these indices."""

    number: int
    image_id: str
    label: int | None
    source: ImageSource | str
    max_pixels: int
    cells: list[int] = field(default_factory=list)


class Gallery:
    """All images of all cells.

    Attributes:
        images: Each once, with a number.
        build: What the numbers in the files of images mean, as a hash: a page shows the files of its own build alone.
        troubles: What is missing, for people: data sets that are gone; images, maps and curves that are not there.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        """Find the images; nothing is decoded yet."""
        self.cells = cells
        self.troubles: list[str] = []
        self._runs = [cell.directory.read_provenance() or {} for cell in cells]
        self._protocols = [read_json(cell.directory.protocol_path / "protocol.json") or {} for cell in cells]
        self._baselines: list[Baseline] = []
        self._hits: dict[int, list[int]] = {}
        self._unreadable: dict[int, str] = {}
        self._numbers: list[list[int]] = []
        self.images = self._find_images()
        self.build = self._build()

    def _find_images(self) -> list[Shown]:
        """An image is the same in two cells that have it under one id, in data of one name, from one file."""
        data_sets: dict[str, Photographs] = {}
        known: dict[tuple[str, str, str], Shown] = {}
        for index, (cell, run) in enumerate(zip(self.cells, self._runs, strict=True)):
            config = run.get("config", {})
            place = repr((config.get("data"), run.get("folder"), run.get("manifest_sha256")))
            if place not in data_sets:
                data_sets[place] = Photographs(run)
                if data_sets[place].trouble:
                    self.troubles.append(f"Photographs of {cell.data}: {data_sets[place].trouble}.")
            numbers = []
            for image_id, label in cell.rows["label"].items():
                source = data_sets[place].find(str(image_id))
                key = (cell.data, str(image_id), repr(source) if isinstance(source, ImageSource) else "")
                if key not in known:
                    known[key] = Shown(
                        number=len(known),
                        image_id=str(image_id),
                        label=_whole(label),
                        source=source,
                        max_pixels=config.get("data", {}).get("max_pixels", 100_000_000),
                    )
                known[key].cells.append(index)
                numbers.append(known[key].number)
            self._numbers.append(numbers)
        return list(known.values())

    def _build(self) -> str:
        """Of all that gives the numbers of images, cells and baselines, and the bytes under them, a meaning."""
        cells = [(cell.run_key, cell.directory.protocol_path.name) for cell in self.cells]
        images = [(shown.image_id, repr(shown.source), shown.cells) for shown in self.images]
        meaning = repr((version("igos-bench"), cells, self._protocols, images))
        return hashlib.sha256(meaning.encode()).hexdigest()[:16]

    def write_files(self, folder: Path, progress: Callable[[], object]) -> None:
        """Write a file an image, and remove those that an earlier report has left beyond them."""
        stored = [StoredCell(cell) for cell in self.cells]
        lacking: Counter[tuple[int, str]] = Counter()
        for shown in self.images:
            content: dict[str, Any] = {"cells": {}}
            for index in shown.cells:
                curve, saliency_map = stored[index].curve(shown.image_id), stored[index].saliency_map(shown.image_id)
                lacking[index, "curve"] += curve is None
                lacking[index, "map"] += saliency_map is None
                if curve is not None:
                    self._hits.setdefault(index, thinned(curve).hits.tolist())
                content["cells"][index] = cell_content(saliency_map, curve, self._protocols[index])
            content["photographs"] = self._photographs(shown)
            write_atomically(folder / f"{shown.number}.js", side_file(self.build, shown.number, content), flush=False)
            progress()
        for path in folder.glob("[0-9]*.js"):
            if path.stem.isdecimal() and int(path.stem) >= len(self.images):
                path.unlink()
        self.troubles += self._told(lacking)

    def _photographs(self, shown: Shown) -> dict[str, Any]:
        """Preprocessing -> what its cells saw, and their baselines; none where it cannot be shown, which is noted."""
        wanted: dict[str, set[int]] = {}
        for index in shown.cells:
            numbers = wanted.setdefault(self._preprocessing(index), set())
            numbers |= {number for number in self._baselines_of(index) if number is not None}
        found = {}
        for preprocessing, numbers in wanted.items():
            try:
                if isinstance(shown.source, str):
                    raise ImageError(shown.source)
                image = read_photograph(shown.source, preprocessing, shown.max_pixels)
            except ImageError as error:
                self._unreadable[shown.number] = str(error)
                return {}
            found[preprocessing] = photograph_content(image, {n: self._baselines[n] for n in sorted(numbers)})
        return found

    def _preprocessing(self, index: int) -> str:
        return str(self._runs[index].get("config", {}).get("preprocessing", "plain"))

    def _baselines_of(self, index: int) -> tuple[int | None, int | None]:
        """Those of a cell, for deletion and insertion, as their numbers among all baselines."""
        found: list[int | None] = []
        for kind in KINDS:
            baseline = baseline_of(self._protocols[index], kind)
            if baseline is not None and baseline not in self._baselines:
                self._baselines.append(baseline)
            found.append(None if baseline is None else self._baselines.index(baseline))
        return found[0], found[1]

    def _hits_without_curves(self, index: int) -> list[int]:
        """Of a cell that has lost all its curves, for its pictures."""
        protocol = self._protocols[index]
        side = INPUT_SIZE if protocol.get("ranking") == "pixels" else self.cells[index].resolution
        return [int(count) for count in thinned_hits(hits_of(protocol, side**2))]

    def data(self) -> dict[str, Any]:
        """The numbers of the gallery, as the page's scripts read them; complete once the files are written."""
        groups = list(dict.fromkeys(tuple(getattr(cell, key) for key in GROUP) for cell in self.cells))
        cells = []
        for index, cell in enumerate(self.cells):
            deletion_baseline, insertion_baseline = self._baselines_of(index)
            cells.append(
                {
                    "group": groups.index((cell.model, cell.data, cell.protocol)),
                    "title": title(cell.label),
                    "signs": signs(cell.marks),
                    "resolution": cell.resolution,
                    "hits": self._hits.get(index) or self._hits_without_curves(index),
                    "preprocessing": self._preprocessing(index),
                    "baselines": {"deletion": deletion_baseline, "insertion": insertion_baseline},
                    "has_class_names": has_imagenet_classes(self._runs[index]),
                    "images": self._numbers[index],
                    "failures": _by_reason(cell.failures),
                    "targets": [_whole(value) for value in cell.rows["target"]],
                    "scores": [_rounded(value) for value in cell.rows["score_image"]],
                    "deletion": [_rounded(value) for value in cell.rows["deletion_auc"]],
                    "insertion": [_rounded(value) for value in cell.rows["insertion_auc"]],
                }
            )
        return {
            "build": self.build,
            "groups": [f"{model}, {data}, protocol {protocol}" for model, data, protocol in groups],
            "cells": cells,
            "ids": [shown.image_id for shown in self.images],
            "labels": [shown.label for shown in self.images],
            "unreadable": self._unreadable,
            "classes": self._class_names(),
        }

    def _class_names(self) -> dict[int, str]:
        """Of the classes that occur in cells whose networks have ImageNet's, and in no others are they so named."""
        columns = [
            cell.rows[column].unique()
            for cell, run in zip(self.cells, self._runs, strict=True)
            if has_imagenet_classes(run)
            for column in ("target", "label")
        ]
        used = {_whole(value) for column in columns for value in column}
        return {index: name for index, name in class_names().items() if index in used} if used else {}

    def _told(self, lacking: Mapping[tuple[int, str], int]) -> Iterator[str]:
        for cell in self.cells:
            if cell.n + cell.failed < cell.requested:  # those that failed have a section of their own
                yield f"{self._where(cell)} has {cell.n:,} of {cell.requested:,} images."
        if self._unreadable:
            number, reason = next(iter(self._unreadable.items()))
            yield (
                f"{len(self._unreadable):,} of {len(self.images):,} photographs cannot be shown, such as "
                f"{self.images[number].image_id}: {reason}."
            )
        for (index, what), count in lacking.items():
            cell = self.cells[index]
            if count:
                yield (
                    f"{self._where(cell)}: the {what}s of {count:,} of {cell.n:,} images are "
                    f"missing or damaged, see {cell.directory.path}; their numbers are shown without."
                )

    def _where(self, cell: Cell) -> str:
        """A cell for people, with model, data and protocol where there are cells of others."""
        groups = {tuple(getattr(one, key) for key in GROUP) for one in self.cells}
        beside = f" on {cell.model}, {cell.data}, under {cell.protocol}" if len(groups) > 1 else ""
        return f"{title(cell.label)} at {cell.resolution}{beside}"


def _whole(value: Any) -> int | None:
    return int(value) if np.isfinite(value) else None


def _rounded(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def _by_reason(failures: Mapping[str, str]) -> dict[str, list[str]]:
    """Reason -> the ids of images: many fail for one."""
    found: dict[str, list[str]] = {}
    for image_id, reason in failures.items():
        found.setdefault(one_line(reason), []).append(image_id)
    return found
