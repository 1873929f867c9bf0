"""Very many rows: read at once, and not made into objects before somebody asks for them one by one."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import overload

import numpy as np
import pandas as pd

from .csv_file import restored
from .formats import COLUMNS, Row, csv_bytes, ok_rows, rows_of

TEXTS = ("image_id", "status", "error")
"""Columns of a row that are no numbers."""


class Rows(Sequence[Row]):
    """Rows in their order, of which some stay the text that they are on disk: as objects, a million take 2 GB."""

    def __init__(self, parts: Iterable[list[Row] | bytes]) -> None:
        """Each part is rows, or a chunk's file whose rows are all ok, see `plain_ids`."""
        self.parts = list(parts)

    def __len__(self) -> int:
        """How many."""
        return sum(part.count(b"\n") - 1 if isinstance(part, bytes) else len(part) for part in self.parts)

    def __iter__(self) -> Iterator[Row]:
        """One after the other."""
        for part in self.parts:
            yield from (rows_of(part) or []) if isinstance(part, bytes) else part

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """As of a list, which is made for it."""
        return list(self)[index]

    @property
    def objects(self) -> list[Row]:
        """Those that are objects already."""
        return [row for part in self.parts if not isinstance(part, bytes) for row in part]

    @cached_property
    def stored(self) -> pd.DataFrame:
        """The numbers of the others."""
        texts = [part for part in self.parts if isinstance(part, bytes)]
        return frame_of(texts, [key for key in COLUMNS if key not in TEXTS])


def failed_rows(rows: Sequence[Row]) -> list[Row]:
    """Those that are not ok."""
    return [row for row in (rows.objects if isinstance(rows, Rows) else rows) if row["status"] != "ok"]


def numbers(rows: Sequence[Row], key: str) -> np.ndarray:
    """What the rows that are ok have in a column, without those that have nothing there."""
    objects = ok_rows(rows.objects if isinstance(rows, Rows) else rows)
    found = np.array([float(row[key]) for row in objects if row.get(key) not in (None, "")], dtype=float)
    return np.concatenate([rows.stored[key].dropna().to_numpy(), found]) if isinstance(rows, Rows) else found


def plain_ids(content: bytes) -> list[str] | None:
    """The ids in a chunk's file, where it needs no more than a look to know them: where no cell has quotes."""
    if b'"' in content or b"'" in content:
        return None
    return [line.partition(",")[0] for line in content.decode().split("\n")[1:-1]]


def frame_of(files: Iterable[bytes], columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """The rows of many chunks' files, each whole, with these of their columns: numbers as float64, others as text."""
    header = csv_bytes([])
    numbers = [key for key in COLUMNS if key not in TEXTS]
    frame = pd.read_csv(
        io.BytesIO(header + b"".join(content.removeprefix(header) for content in files)),
        usecols=list(columns),
        dtype={**dict.fromkeys(TEXTS, str), **dict.fromkeys(numbers, float)},
        keep_default_na=False,
        na_values={key: [""] for key in numbers},
        lineterminator="\n",
    )
    for key in frame.columns.intersection(list(TEXTS)):
        if (inert := frame[key].str.contains("'", regex=False)).any():
            frame.loc[inert, key] = frame.loc[inert, key].map(restored)
    return frame
