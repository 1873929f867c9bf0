"""The cells of a results folder that a figure or a film is of, and the images in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from .cells import GROUP, Cell, checked_cells, readable_cells
from .errors import UserError, tell, unknown
from .figure_words import RESOLUTION, Asked
from .layout import TITLES, title


def with_areas(asked: Asked) -> list[Cell]:
    """The cells of one model, data set and protocol, and of the methods, that have areas; raises UserError."""
    cells = _of_methods(_of_one_group(asked, allow_partial=asked.allow_partial), asked.methods)
    drawn = [cell for cell in cells if cell.n and not math.isnan(cell.rows["deletion_auc"].mean())]
    if not drawn:
        raise UserError("none of the cells that were asked for has an image that is done: there is nothing to draw")
    return drawn


def with_image(asked: Asked) -> list[Cell]:
    """Likewise, the cells in which the image was tried, in the paper's order of methods; raises UserError."""
    cells = _of_one_group(asked, allow_partial=True)
    _check_image(cells, asked.image)
    methods = [asked.method] if asked.kind in ("resolutions", "film") else asked.methods
    return sorted(_of_methods(cells, methods), key=lambda cell: _place(cell, methods))


def at_resolution(cells: Sequence[Cell], resolution: int) -> list[Cell]:
    """Of each method and variant its cell at the resolution, or the only one that it has.

    Raises:
        UserError: One has several, and none at the resolution.
    """
    found = []
    for label in dict.fromkeys(cell.label for cell in cells):
        mine = [cell for cell in cells if cell.label == label]
        there = [cell for cell in mine if cell.resolution == resolution] or mine
        if len(there) > 1:
            others = ", ".join(str(cell.resolution) for cell in there)
            raise UserError(
                f"{title(label)} has no cell at {resolution} but at {others}: say another resolution=, "
                "make that cell, or leave the method out of methods=[...]"
            )
        found += there
    return found


def of_runs(cells: Sequence[Cell], asked: Asked) -> list[Cell]:
    """The cells of the runs that were said, in that order; raises UserError where one is no run's, or several runs'."""
    at = "" if asked.resolution is None else f" at {asked.resolution}"
    there = [cell for cell in cells if asked.resolution in (None, cell.resolution)]
    found = []
    for key in dict.fromkeys(asked.run):
        mine = [cell for cell in there if cell.run_key.startswith(key)]
        if not mine:
            raise _no_run(" and ".join(dict.fromkeys(cell.method for cell in cells)), at, key, cells)
        if len(mine) > 1:
            names = "; ".join(f"{title(cell.label)} at {cell.resolution}, run={cell.run_key}" for cell in mine)
            raise UserError(f"{len(mine)} runs have a key that begins with {key}, say which: {names}")
        found += [cell for cell in mine if cell not in found]
    return found


def one_run(cells: Sequence[Cell], asked: Asked) -> Cell:
    """The cell of a film, or the only one where no resolution was said; raises UserError at none, or several."""
    resolution = asked.resolution or RESOLUTION
    key = asked.run[0] if asked.run else ""
    mine = [cell for cell in cells if cell.run_key.startswith(key)]
    is_clear = asked.resolution is None and len(mine) == 1
    there = mine if is_clear else [cell for cell in mine if cell.resolution == resolution]
    if len(there) == 1:
        return there[0]
    if there:
        names = "; ".join(f"{cell.variant or 'the same settings'}, run={cell.run_key}" for cell in there)
        raise UserError(f"{asked.method} at {resolution} has several runs, say which: {names}")
    raise _no_run(asked.method, f" at {resolution}", key, cells)


def _no_run(whose: str, at: str, key: str, cells: Sequence[Cell]) -> UserError:
    runs = ", ".join(f"{cell.run_key} at {cell.resolution}" for cell in cells)
    of = f" whose key begins with {key}" if key else ""
    return UserError(f"{whose} has no run{at}{of}; there are {runs}")


def _of_one_group(asked: Asked, *, allow_partial: bool) -> list[Cell]:
    results_dir = Path(asked.results_dir)
    cells, troubles = readable_cells(results_dir)
    if troubles and not cells:
        raise UserError(f"none of the runs can be read: {troubles[0]}")
    for trouble in troubles:
        tell(f"left out: {trouble}")
    cells = checked_cells(cells, results_dir, allow_partial=allow_partial)
    for key in GROUP:
        there = list(dict.fromkeys(getattr(cell, key) for cell in cells))
        value = getattr(asked, key)
        if value is not None and value not in there:
            raise UserError(unknown(key, value, there))
        if value is None and len(there) > 1:
            raise UserError(f"the runs are of several, {', '.join(there)}, which do not compare: say {key}={there[0]}")
        cells = [cell for cell in cells if value in (None, getattr(cell, key))]
    return cells


def _of_methods(cells: Sequence[Cell], methods: Sequence[str] | None) -> list[Cell]:
    there = list(dict.fromkeys(cell.method for cell in cells))
    for method in methods or []:
        if method not in there:
            raise UserError(unknown("method", method, there))
    return [cell for cell in cells if methods is None or cell.method in methods]


def _check_image(cells: Sequence[Cell], image_id: str) -> None:
    ids = list(dict.fromkeys(str(i) for cell in cells for i in [*cell.rows.index, *cell.failures]))
    if image_id in ids:
        return
    near = get_close_matches(image_id, ids, n=5, cutoff=0.3) or ids[:5]
    more = f" and {len(ids) - len(near):,} more" if len(ids) > len(near) else ""
    raise UserError(f"no cell has an image {image_id!r}; there are {', '.join(near)}{more}")


def _place(cell: Cell, methods: Sequence[str] | None) -> tuple[int, str, int]:
    """As they were asked for; else in the paper's order, other methods after them."""
    order = list(methods or TITLES)
    place = order.index(cell.method) if cell.method in order else len(order)
    return place, cell.label, -cell.resolution
