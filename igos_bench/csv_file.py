"""CSV that a spreadsheet can open without running anything, and that is read back as it was."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\t", "\r", "\n", "'")
"""What a spreadsheet takes for the beginning of a formula, full-width too, or drops before one; and the apostrophe
that stops it."""

NUMBER = re.compile(r"[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)(e[-+]?[0-9]+)?", re.ASCII | re.IGNORECASE)


def csv_text(columns: Iterable[str], rows: Iterable[Mapping[Any, Any]]) -> str:
    """Rows as CSV with a header, full float precision, Unix line ends, every cell `inert`."""
    names = list(columns)
    return _line(names) + "".join(_line([inert(row.get(name)) for name in names]) for row in rows)


def csv_rows(text: str) -> list[dict[str, Any]]:
    """The rows of `csv_text`, every cell as text; raises csv.Error. A row that is too short or too long has None."""
    lines = csv.reader(io.StringIO(text, newline=""))
    names = next(lines, [])
    rows: list[dict[Any, Any]] = [dict(zip_longest(names, cells)) for cells in lines if cells]
    if "'" not in text:
        return rows
    return [{key: restored(cell) if isinstance(cell, str) else cell for key, cell in row.items()} for row in rows]


def inert(cell: Any) -> Any:
    """A cell as it is written: text that a spreadsheet would run as a formula gets an apostrophe in front.

    So does text that begins with an apostrophe, for `restored` to undo it. A number, also one in text, stays as it is.
    What is no Unicode, of a file's name in another encoding, is written as its escape.
    """
    if not isinstance(cell, str):
        return cell
    text = cell.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(FORMULA) and not NUMBER.fullmatch(text) else text


def restored(cell: str) -> str:
    """The text that `inert` was given."""
    return cell.removeprefix("'")


def _line(cells: Iterable[Any]) -> str:
    # Python's writer puts quotes around the letters of its line end alone: around a carriage return only with this one.
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"
