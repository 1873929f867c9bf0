"""What the page knows of every image in every cell before any picture is loaded, and the files with the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..cells import GROUP, Cell
from ..perturb import Baseline
from ..results import read_json, write_atomically
from ..source import ImageSource
from .classes import NAMED, class_names
from .photographs import Photographs
from .pictures import baseline_of, cell_content, photograph_content, readable_photograph, side_file
from .sections import title
from .stored import StoredCell


@dataclass
class Shown:
    """An image of the gallery: the file `<number>.js` is its own."""

    number: int
    image_id: str
    label: int | None
    source: ImageSource | str
    preprocessing: str
    max_pixels: int
    cells: list[int] = field(default_factory=list)


class Gallery:
    """All images of all cells.

    Attributes:
        troubles: What is missing, for people: data sets that are gone, maps and curves that are not there.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        """Find the images; nothing is decoded yet."""
        self.cells = cells
        self.troubles: list[str] = []
        self.images: list[Shown] = []
        self._baselines: list[Baseline] = []
        self._unreadable: dict[int, str] = {}
        self._hits: dict[int, list[int]] = {}
        self._protocols = [_protocol(cell) for cell in cells]
        self._numbers: list[list[int]] = []
        known: dict[tuple[str, str, str], Shown] = {}
        data_sets: dict[str, Photographs] = {}
        for index, cell in enumerate(cells):
            run = cell.directory.read_provenance() or {}
            config = run.get("config", {})
            place = repr((config.get("data"), run.get("folder"), run.get("manifest_sha256")))
            if place not in data_sets:
                data_sets[place] = Photographs(run)
                if data_sets[place].trouble:
                    self.troubles.append(f"Photographs of {cell.data}: {data_sets[place].trouble}.")
            numbers = []
            for image_id, label in cell.rows["label"].items():
                source = data_sets[place].find(str(image_id))
                where = f"{source.path} {source.span}" if isinstance(source, ImageSource) else ""
                shown = known.setdefault(
                    (cell.data, str(image_id), where),
                    Shown(
                        number=len(known),
                        image_id=str(image_id),
                        label=None if np.isnan(label) else int(label),
                        source=source,
                        preprocessing=config.get("preprocessing", "plain"),
                        max_pixels=config.get("data", {}).get("max_pixels", 100_000_000),
                    ),
                )
                shown.cells.append(index)
                numbers.append(shown.number)
            self._numbers.append(numbers)
        self.images = list(known.values())

    def write_files(self, folder: Path, progress: Callable[[], object]) -> None:
        """Write a file an image, and remove those that an earlier report has left beyond them."""
        stored = [StoredCell(cell) for cell in self.cells]
        lacking: dict[str, list[int]] = {"map": [0] * len(stored), "curve": [0] * len(stored)}
        for shown in self.images:
            content: dict[str, Any] = {"cells": {}}
            baselines: dict[int, Baseline] = {}
            for index in shown.cells:
                curve, saliency_map = (
                    stored[index].curve(shown.image_id),
                    stored[index].saliency_map(shown.image_id),
                )
                lacking["curve"][index] += curve is None
                lacking["map"][index] += saliency_map is None
                if curve is not None:
                    self._hits.setdefault(index, curve.hits.tolist())
                protocol = self._protocols[index]
                content["cells"][index] = cell_content(saliency_map, curve, protocol.get("ranking", "elements"))
                baselines |= {n: self._baselines[n] for n in self._baselines_of(protocol) if n is not None}
            image = (
                shown.source
                if isinstance(shown.source, str)
                else readable_photograph(shown.source, shown.preprocessing, shown.max_pixels)
            )
            if isinstance(image, str):
                self._unreadable[shown.number] = image
            else:
                content |= photograph_content(image, baselines)
            write_atomically(folder / f"{shown.number}.js", side_file(shown.number, content), flush=False)
            progress()
        for path in folder.glob("[0-9]*.js"):
            if path.stem.isdecimal() and int(path.stem) >= len(self.images):
                path.unlink()
        self.troubles += list(self._told(lacking))

    def data(self) -> dict[str, Any]:
        """The numbers of the gallery, as the page's scripts read them; complete once the files are written."""
        groups: dict[tuple[str, ...], int] = {}
        cells = []
        for cell, protocol, images, index in zip(
            self.cells, self._protocols, self._numbers, range(len(self.cells)), strict=True
        ):
            group = groups.setdefault(tuple(getattr(cell, key) for key in GROUP), len(groups))
            deletion_baseline, insertion_baseline = self._baselines_of(protocol)
            cells.append(
                {
                    "group": group,
                    "title": title(cell),
                    "method": cell.label,
                    "resolution": cell.resolution,
                    "key": cell.run_key,
                    "hits": self._hits.get(index),
                    "baselines": {"deletion": deletion_baseline, "insertion": insertion_baseline},
                    "images": images,
                    "targets": [_whole(value) for value in cell.rows["target"]],
                    "scores": [_rounded(value) for value in cell.rows["score_image"]],
                    "deletion": [_rounded(value) for value in cell.rows["deletion_auc"]],
                    "insertion": [_rounded(value) for value in cell.rows["insertion_auc"]],
                }
            )
        used = {value for cell in cells for value in cell["targets"]} | {shown.label for shown in self.images}
        return {
            "groups": [f"{model}, {data}, protocol {protocol}" for model, data, protocol in groups],
            "cells": cells,
            "ids": [shown.image_id for shown in self.images],
            "labels": [shown.label for shown in self.images],
            "unreadable": self._unreadable,
            "classes": {index: name for index, name in self._class_names().items() if index in used},
        }

    def _class_names(self) -> dict[int, str]:
        """Names, where every cell's images are ImageNet's: others number their classes in their own way."""
        layouts = {
            (cell.directory.read_provenance() or {}).get("config", {}).get("data", {}).get("layout")
            for cell in self.cells
        }
        return class_names() if layouts and layouts <= set(NAMED) else {}

    def _baselines_of(self, protocol: Mapping[str, Any]) -> tuple[int | None, int | None]:
        """Their numbers among all baselines, for deletion and for insertion."""
        found = []
        for kind in ("deletion", "insertion"):
            baseline = baseline_of(protocol, kind)
            if baseline is not None and baseline not in self._baselines:
                self._baselines.append(baseline)
            found.append(None if baseline is None else self._baselines.index(baseline))
        return found[0], found[1]

    def _told(self, lacking: Mapping[str, Sequence[int]]) -> Iterator[str]:
        if self._unreadable:
            number, reason = next(iter(self._unreadable.items()))
            yield (
                f"{len(self._unreadable):,} of {len(self.images):,} photographs cannot be shown, such as "
                f"{self.images[number].image_id}: {reason}."
            )
        for what, counts in lacking.items():
            for cell, count in zip(self.cells, counts, strict=True):
                if count:
                    yield (
                        f"{title(cell)} at {cell.resolution}: of {count:,} of {cell.n:,} images the {what} is missing or "
                        f"damaged, see {cell.directory.path}; their numbers are shown without it."
                    )


def _protocol(cell: Cell) -> dict[str, Any]:
    """Its choices, as they stand beside its rows."""
    return read_json(cell.directory.protocol_path / "protocol.json") or {}


def _whole(value: float) -> int | None:
    return int(value) if np.isfinite(value) else None


def _rounded(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
