"""Maps and curves of a cell, image by image, whichever chunk they lie in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .cells import Cell
from .formats import by_id


@dataclass(frozen=True)
class Curve:
    """Of one image: `hits` (n + 1,) ranked elements at each point, `deletion` and `insertion` (n + 1,) there."""

    hits: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Of the elements that are hit at each point, (n + 1,) from 0 to 1."""
        return np.asarray(self.hits / self.hits[-1])


class StoredCell:
    """Reads a chunk when one of its images is asked for, and keeps the last two."""

    def __init__(self, cell: Cell) -> None:
        """Find out which chunk each image lies in."""
        directory = cell.directory
        self._chunks = directory.chunk_of()

        @lru_cache(maxsize=2)
        def maps(chunk: int) -> dict[str, np.ndarray]:
            return by_id(directory.read_maps(chunk), "saliency_map")

        @lru_cache(maxsize=2)
        def curves(chunk: int) -> dict[str, Curve]:
            arrays = directory.read_curves(chunk)
            deletion, insertion = (by_id(arrays, kind) for kind in ("deletion", "insertion"))
            return {i: Curve(arrays["hits"], deletion[i], insertion[i]) for i in deletion} if arrays else {}

        self._maps, self._curves = maps, curves

    def saliency_map(self, image_id: str) -> np.ndarray | None:
        """(r, r), or None where it is not there or damaged."""
        found = self._maps(self._chunks[image_id]).get(image_id)
        return None if found is None else found[0]

    def curve(self, image_id: str) -> Curve | None:
        """Its curves, or None where they are not there or damaged."""
        return self._curves(self._chunks[image_id]).get(image_id)
