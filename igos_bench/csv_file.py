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

BEGINNING = r"(\A|[;\t\r\n])"
"""Where a spreadsheet may begin a cell. In many countries Excel separates them at semicolons and not at commas: quotes
behind a comma are letters to it, and keep neither a semicolon nor a line's end from ending a cell."""

BEFORE_A_FORMULA = re.compile(rf"{BEGINNING}(?=\"*[{''.join(map(re.escape, FORMULA))}])")

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

    So does what comes after a semicolon, a tab or a line's end in it. Text that begins with an apostrophe gets another,
    for `restored` to undo it. A number, also one in text, stays as it is. What is no Unicode, of a file's name in
    another encoding, is written as its escape.
    """
    if not isinstance(cell, str):
        return cell
    text = cell.encode("utf-8", "backslashreplace").decode()
    return text if NUMBER.fullmatch(text) else BEFORE_A_FORMULA.sub(r"\1'", text)


def restored(cell: str) -> str:
    """The text that `inert` was given."""
    return re.sub(f"{BEGINNING}'", r"\1", cell)


def _line(cells: Iterable[Any]) -> str:
    # Python's writer puts quotes around the letters of its line end: so around other separators too.
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n\t;").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n\t;") + "\n"
