"""What the files of results hold: rows, arrays, JSON. Each is read whole, or told to be damaged."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np

from .csv_file import csv_rows, csv_text
from .errors import UserError

COLUMNS = (
    "image_id",
    "label",
    "target",
    "score_image",
    "score_baseline",
    "deletion_auc",
    "insertion_auc",
    "ties",
    "explain_seconds",
    "score_seconds",
    "forwards",
    "backwards",
    "status",
    "error",
)
TIMING_COLUMNS = (
    "chunk",
    "images",
    "decode_seconds",
    "explain_seconds",
    "score_seconds",
    "forwards",
    "backwards",
    "peak_memory_mb",
    "notes",
)

Row = dict[str, Any]


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as a compressed .npz, without pickle; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def arrays_of(content: bytes | None, *keys: str) -> dict[str, np.ndarray] | None:
    """These arrays of an .npz, or None where there is no content, or it is damaged, or lacks one."""
    try:
        with np.load(io.BytesIO(content or b""), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in keys}
    except (OSError, BadZipFile, zlib.error, ValueError, EOFError, KeyError, RuntimeError):  # zipfile's others
        return None
    except (MemoryError, OverflowError, SyntaxError, TokenError, AttributeError):  # of a header that was made up
        return None


def by_id(arrays: Mapping[str, np.ndarray] | None, key: str) -> dict[str, np.ndarray]:
    """One of a chunk's arrays, image id -> what it has of that image; empty where there are none."""
    return dict(zip(map(str, arrays["image_id"]), arrays[key], strict=True)) if arrays else {}


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file, or None where there is none; raises UserError where it is damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, found {type(content).__name__}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). The maps and rows beside it are untouched: restore the file, or move "
            f"the folder {path.parent} away and start again"
        ) from error
    return content


def read_csv(path: Path) -> list[Row] | None:
    """The rows of a chunk's file or of records.csv, as text; None where it is damaged or cannot be read."""
    try:
        return rows_of(path.read_bytes())
    except OSError:
        return None


def rows_of(content: bytes, columns: Sequence[str] = COLUMNS) -> list[Row] | None:
    """The rows that `csv_bytes` made, as text; None where they are damaged."""
    try:
        text = content.decode()
        rows = csv_rows(text)
    except (ValueError, csv.Error):
        return None
    whole = text.startswith(",".join(columns) + "\n") and text.endswith("\n")
    return rows if whole and all(len(row) == len(columns) and None not in row.values() for row in rows) else None


def csv_bytes(rows: Iterable[Mapping[Any, Any]], columns: Sequence[str] = COLUMNS) -> bytes:
    """Rows with a header."""
    return csv_text(columns, rows).encode()


def ok_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows that hold numbers."""
    return [row for row in rows if row["status"] == "ok"]
