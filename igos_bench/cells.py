"""The cells of a results folder: what each run left under each protocol, and how runs of one method differ.

Needs no torch, and reads the committed chunks themselves: what a killed run committed counts, `records.csv` or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import UserError
from .formats import COLUMNS, read_json, rows_of
from .marks import marks_of_run
from .results import RunDirectory, run_files
from .rows import TEXTS, frame_of
from .tally import record_files

GROUP = ["model", "data", "protocol"]
"""What a table is of: only its cells are compared."""

MEANS = ("deletion_auc", "insertion_auc", "explain_seconds", "score_seconds")
"""Columns of a row that a table has the means of."""

# What may differ between runs of a method and yet is no setting of its own.
_PLACES = ("method.name", "protocol.name", "protocol.version")


@dataclass(frozen=True)
class Cell:
    """One run under one protocol.

    Attributes:
        variant: What tells it from other runs of its method, `key=value`; empty where there are none.
        requested: How many images were asked for.
        settings: What tells runs apart: hyper-parameters, protocol, seed, precision, preprocessing, hashes.
        rows: Of the images that are done, by `image_id`, with the columns of records.csv, or those that were asked for.
        directory: Where its maps and curves are.
        code: What its reader should know of the code that computed it, words of `marks.MARKS`.
        failures: Why images could not be done, by image id.
    """

    model: str
    data: str
    protocol: str
    method: str
    resolution: int
    variant: str
    run_key: str
    settings: Mapping[str, str]
    requested: int
    rows: pd.DataFrame
    directory: RunDirectory
    code: tuple[str, ...]
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """How many images are done."""
        return len(self.rows)

    @property
    def failed(self) -> int:
        """How many images could not be done."""
        return len(self.failures)

    @property
    def label(self) -> str:
        """Method and variant."""
        return f"{self.method} {self.variant}".strip()

    @property
    def complete(self) -> bool:
        """Whether every requested image is done."""
        return 0 < self.n == self.requested

    @property
    def marks(self) -> str:
        """Words of `marks.MARKS`, with spaces between."""
        return " ".join(("incomplete",) * (not self.complete) + self.code)


def read_cells(results_dir: Path, *, allow_partial: bool = False, columns: Sequence[str] = COLUMNS) -> list[Cell]:
    """All cells under `results_dir`/runs, by model, data, protocol and method, finest first.

    Args:
        results_dir: The results folder.
        allow_partial: Take cells that are incomplete.
        columns: Which of records.csv `Cell.rows` are to have: of millions of rows, all do not fit into memory. Without
            `image_id` they are numbered.

    Raises:
        UserError: There are no runs; a file of one is damaged; or, without `allow_partial`, a cell is incomplete.
    """
    named = _named([cell for path in run_files(results_dir) for cell in _cells_of_run(path, columns)])
    return checked_cells(named, results_dir, allow_partial=allow_partial)


def checked_cells(named: list[Cell], results_dir: Path, *, allow_partial: bool) -> list[Cell]:
    """These cells of a results folder; raises UserError where there are none, or one that is not allowed is partial."""
    if not named:
        raise UserError(f"no runs under {results_dir / 'runs'}: make one with `igos-bench method=igos resolution=28`")
    if not allow_partial and (partial := [cell for cell in named if not cell.complete]):
        some = "; ".join(
            f"{cell.label} at {cell.resolution} on {cell.model}, {cell.data}, under {cell.protocol} has {cell.n:,} of "
            f"{cell.requested:,} images" + (f" ({cell.failed:,} failed)" if cell.failed else "")
            for cell in partial[:5]
        )
        more = f"; and {len(partial) - 5} more" if len(partial) > 5 else ""
        raise UserError(
            f"{len(partial)} of {len(named)} cells are incomplete: {some}{more}. Start their runs again with the same "
            f"words, which computes what is missing, or say allow_partial=true to take them as they are, marked"
        )
    return named


def find_cells(results_dir: Path) -> list[Cell]:
    """All cells under `results_dir`/runs, finished or not, without names for what tells them apart."""
    return [cell for path in run_files(results_dir) for cell in _cells_of_run(path)]


def readable_cells(results_dir: Path) -> tuple[list[Cell], list[str]]:
    """All cells that can be read, in the order of `read_cells`, complete or not, and what is wrong with the others."""
    cells: list[Cell] = []
    troubles: list[str] = []
    for path in run_files(results_dir):
        try:
            cells += _cells_of_run(path)
        except UserError as error:
            troubles.append(str(error))
        except (KeyError, TypeError, ValueError) as error:
            troubles.append(f"{path} is not as a run leaves it ({type(error).__name__}: {error}): it was edited")
    return _named(cells), troubles


def settings_of(config: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, str]:
    """What of a configuration, as run.json has it, changes maps and scores, under dotted names."""
    settings = {
        **_flat("method", config["method"]),
        **_flat("protocol", protocol),
        **{key: str(config[key]) for key in ("seed", "precision", "preprocessing")},
    }
    return {key: value for key, value in settings.items() if key not in _PLACES}


def _named(cells: Sequence[Cell]) -> list[Cell]:
    """In the order of a table, with variants where runs of one method differ."""
    cells = sorted(cells, key=_place)
    named = [cell for _, group in groupby(cells, key=lambda cell: _place(cell)[:4]) for cell in _name(list(group))]
    return sorted(named, key=lambda cell: (*_place(cell)[:4], cell.variant, -cell.resolution))


def _place(cell: Cell) -> tuple[str, str, str, str, int]:
    return cell.model, cell.data, cell.protocol, cell.method, -cell.resolution


def _cells_of_run(path: Path, columns: Sequence[str] = COLUMNS) -> Iterator[Cell]:
    run = read_json(path) or {}
    listing = path.parent / "images.txt"
    asked = listing.read_text(encoding="utf-8").split("\n")[:-1] if listing.exists() else None
    code = marks_of_run(run)
    folders = sorted(folder.parent for folder in path.parent.glob("*-*/records"))
    for folder in folders or [path.parent / f"{run['protocol']}-"]:
        rows = _rows(folder, columns)
        if asked is not None:
            rows = rows[rows.index.isin(asked)]
        is_ok = rows["status"] == "ok"
        protocol = read_json(folder / "protocol.json") or run["config"]["protocol"]
        hashes = {"weights": str(run["weights_sha256"])[:8], "images": str(run["manifest_sha256"])[:8]}
        yield Cell(
            model=run["model"],
            data=run["data"],
            protocol=folder.name.rpartition("-")[0],
            method=run["method"],
            resolution=run["resolution"],
            variant="",
            run_key=run["map_key"],
            settings={**settings_of(run["config"], protocol), **hashes},
            requested=run["requested"] if asked is None else len(asked),
            rows=_chosen(rows[is_ok], columns),
            directory=RunDirectory(path.parent, folder.name),
            code=code,
            failures={str(i): str(why) for i, why in rows.loc[~is_ok, "error"].items()},
        )


def _rows(folder: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The committed rows of a protocol's folder, with these of their columns, by image id."""
    files = record_files(folder)
    parts: list[bytes] = []
    for first, found in files.files():
        damaged = [(files.archive(first), "those chunks again and no others")] * files.is_damaged(first)
        for chunk, file in found:
            if file.packed is None and rows_of(file.content) is None:  # what is packed has a sum
                damaged.append((files.loose(chunk), "that chunk again and no other"))
            parts.append(file.content)
        if damaged:
            raise UserError(
                f"{damaged[0][0]} is damaged or cannot be read: start its run again with the same words, which "
                f"computes {damaged[0][1]}"
            )
    wanted = [key for key in COLUMNS if key in TEXTS or key in columns]
    return frame_of(parts, wanted).set_index("image_id")


def _chosen(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """These columns, of which the index may be one."""
    chosen = rows[[key for key in rows.columns if key in columns]]
    return chosen if "image_id" in columns else chosen.reset_index(drop=True)


def _flat(prefix: str, content: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings under dotted names, as text."""
    found: dict[str, str] = {}
    for key, value in content.items():
        found |= _flat(f"{prefix}.{key}", value) if isinstance(value, Mapping) else {f"{prefix}.{key}": str(value)}
    return found


def _name(cells: Sequence[Cell]) -> Iterator[Cell]:
    """Give the runs of one method the settings in which they differ as their names; where that fails, their keys."""
    keys = sorted({key for cell in cells for key in cell.settings})
    differ = [key for key in keys if _tells(key, [cell.settings.get(key) for cell in cells])]
    variants = [
        " ".join(f"{key.removeprefix('method.')}={cell.settings[key]}" for key in differ if key in cell.settings)
        for cell in cells
    ]
    places = [(cell.resolution, variant) for cell, variant in zip(cells, variants, strict=True)]
    for cell, variant, place in zip(cells, variants, places, strict=True):
        same = f"run={cell.run_key}" if places.count(place) > 1 else ""
        yield replace(cell, variant=f"{variant} {same}".strip())


def _tells(key: str, values: Sequence[str | None]) -> bool:
    """Whether a setting tells runs apart. One inside another that some runs do not have (lambdas=tuned) does not."""
    there = {value for value in values if value is not None}
    return len(there) > 1 or (None in values and key.count(".") < 2)
