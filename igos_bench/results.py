"""What a run leaves on disk: its key, its chunks, its records, its provenance. The only module that writes results.

    results/runs/<model>/<data>/<method>/<resolution>/<map_key>/
        run.json                      what ran, on what
        images.txt                    ids of the images that were asked for; data.list reads it
        timing.csv                    a line a chunk and attempt, made from timing/
        timing/000000.csv             those of chunk 0
        maps/000000.npz               saliency maps of chunk 0
        leases/                       who works on what now, see `lease`
        <protocol>-<key>/
            protocol.json             its choices
            curves/000000.npz         its curves
            records/000000.csv        its rows: the chunk is done when this file is there
            records.csv               all rows, made from records/

Every file is written whole and renamed into its place, so that none is ever torn; a chunk's rows come last and commit
it. Where one of a chunk's three files is damaged from outside, that chunk is computed again, and no other: so it is
after a power cut too, since maps and curves are not flushed to the disk one by one (some 3 ms each). A chunk has files
of its own, which only the process that holds its lease changes; `records.csv` is made anew from `records/`, so that a
damaged one loses nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np

from .atomic import change, write_atomically, write_inside
from .csv_file import csv_rows, csv_text
from .errors import UserError, cannot_write
from .lease import Lease, LeaseLostError

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


def short_key(content: Mapping[str, Any]) -> str:
    """The first 12 hex digits of the sha256 of `content` as canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]


def check_folder_name(key: str, name: str) -> None:
    """Raise UserError where a name could not be, or would escape, its folder among the results."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UserError(
            f"{key}={name!r} becomes the name of a folder: write it in letters, digits, `_`, `-` and `.`, "
            "without a `.` or `-` in front"
        )


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as a compressed .npz, without pickle; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


@dataclass
class Tally:
    """What committed rows come to: how many are done, how many failed and why, and the seconds of those done."""

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def tally(protocol_path: Path) -> Tally:
    """Count the committed rows of a run under one protocol; a file that is damaged counts as not done."""
    found = Tally()
    for path in (protocol_path / "records").glob("[0-9]*.csv"):
        for row in read_csv(path) or ():
            if row["status"] == "ok":
                found.done += 1
                found.seconds += float(row["explain_seconds"] or 0) + float(row["score_seconds"] or 0)
            else:
                found.failed[row["error"]] += 1
    return found


class RunDirectory:
    """The files of one run: one method, resolution, model and data set.

    What is written under a `lease` raises LeaseLostError where another process has taken that over, and is not written.
    """

    def __init__(self, path: Path, protocol_folder: str) -> None:
        """`protocol_folder` is `<protocol>-<key>`."""
        self.path = path
        self.protocol_path = path / protocol_folder

    # Provenance

    def read_provenance(self) -> dict[str, Any] | None:
        """run.json, or None where the run has never started."""
        return read_json(self.path / "run.json")

    def write_provenance(self, provenance: Mapping[str, Any], lease: Lease | None = None) -> None:
        """Replace run.json."""
        _write_under(lease, self.path / "run.json", (json.dumps(provenance, indent=2) + "\n").encode())

    def write_listing(self, listing: str, lease: Lease | None = None) -> None:
        """Write images.txt, ids one a line, unless it has more: under one key, all are prefixes of the longest."""
        path = self.path / "images.txt"
        if not path.exists() or len(listing.encode()) > path.stat().st_size:
            _write_under(lease, path, listing.encode())

    def write_protocol(self, protocol: Mapping[str, Any]) -> None:
        """Every choice of the protocol, beside what was made under it."""
        write_atomically(self.protocol_path / "protocol.json", (json.dumps(protocol, indent=2) + "\n").encode())

    # Chunks

    def write_maps(self, chunk: int, arrays: Mapping[str, np.ndarray], lease: Lease | None = None) -> None:
        """Saliency maps of a chunk; rows, under any protocol, that rest on maps which change are withdrawn first."""
        before, after = (by_id(maps, "saliency_map") for maps in (self.read_maps(chunk), arrays))
        changed = {i for i, old in before.items() if i not in after or not np.array_equal(old, after[i])}
        for path in self.path.glob(f"*/records/{chunk:06d}.csv") if changed else ():
            if any(row["image_id"] in changed for row in ok_rows(read_csv(path) or [])):
                if lease:
                    lease.withdraw(path)
                else:
                    path.unlink()
        _write_under(lease, self.path / "maps" / f"{chunk:06d}.npz", pack(arrays), flush=False)

    def read_maps(self, chunk: int) -> dict[str, np.ndarray] | None:
        """Saliency maps of a chunk, or None where they are not there or damaged."""
        return _read_npz(self.path / "maps" / f"{chunk:06d}.npz", "image_id", "saliency_map")

    def read_curves(self, chunk: int) -> dict[str, np.ndarray] | None:
        """Curves of a chunk and the `hits` they are over, or None where they are not there or damaged."""
        path = self.protocol_path / "curves" / f"{chunk:06d}.npz"
        return _read_npz(path, "image_id", "hits", "deletion", "insertion")

    def read_results(self, chunk: int) -> dict[str, dict[str, Any]]:
        """What a chunk has under this protocol, by image id: `row`, `map`, `deletion`, `insertion`, `hits`."""
        rows = ok_rows(read_csv(self.protocol_path / "records" / f"{chunk:06d}.csv") or [])
        maps = by_id(self.read_maps(chunk), "saliency_map")
        curves = self.read_curves(chunk)
        deletion, insertion = (by_id(curves, kind) for kind in ("deletion", "insertion"))
        hits = curves["hits"] if curves else None
        return {
            i: {
                "image_id": i,
                "row": row,
                "map": maps[i],
                "deletion": deletion[i],
                "insertion": insertion[i],
                "hits": hits,
            }
            for row in rows
            if (i := row["image_id"]) in maps and i in deletion
        }

    def results(self) -> Iterator[dict[str, dict[str, Any]]]:
        """What every chunk that is done has under this protocol, one after the other; see `read_results`."""
        for path in sorted((self.protocol_path / "records").glob("[0-9]*.csv")):
            yield self.read_results(int(path.stem))

    def is_scored_elsewhere(self, chunk: int) -> bool:
        """Whether a chunk has rows under another protocol."""
        return any(p.parent.parent != self.protocol_path for p in self.path.glob(f"*/records/{chunk:06d}.csv"))

    def commit(self, chunk: int, curves: Mapping[str, np.ndarray], rows: list[Row], lease: Lease | None = None) -> None:
        """Commit a chunk: its curves, and then its rows, which make it done."""
        _write_under(lease, self.protocol_path / "curves" / f"{chunk:06d}.npz", pack(curves), flush=False)
        _write_under(lease, self.protocol_path / "records" / f"{chunk:06d}.csv", csv_text(COLUMNS, rows).encode())

    def look_anew(self) -> None:
        """See rows that were committed just now, on any machine."""
        change(self.protocol_path / "records")

    def stamp(self, chunk: int) -> tuple[int, int] | None:
        """What changes whenever the rows of a chunk are committed; None where there are none."""
        return _stamp(self.protocol_path / "records" / f"{chunk:06d}.csv")

    def read_rows(self, chunk: int) -> list[Row]:
        """The committed rows of a chunk, as text; empty where it is not done, or no longer whole, which it warns of."""
        path = self.protocol_path / "records" / f"{chunk:06d}.csv"
        if not path.exists():
            return []
        rows = read_csv(path)
        arrays = [folder / f"{chunk:06d}.npz" for folder in (self.path / "maps", self.protocol_path / "curves")]
        # A torn archive has lost its directory, which stands at its end; an empty one lacks what the rows speak of.
        wanted = {row["image_id"] for row in ok_rows(rows or [])}
        there = {file: _read_npz(file, "image_id") for file in arrays}
        damaged = [path] * (rows is None)
        damaged += [file for file, found in there.items() if found is None or not wanted <= set(found["image_id"])]
        if damaged:
            warnings.warn(f"{damaged[0]} is missing or damaged: chunk {chunk} is computed again", stacklevel=2)
        return [] if damaged else rows or []

    def failed_ids(self, chunk: int) -> set[str]:
        """The images of a chunk that failed under any protocol."""
        paths = self.path.glob(f"*/records/{chunk:06d}.csv")
        return {row["image_id"] for path in paths for row in read_csv(path) or [] if row["status"] != "ok"}

    def log_timing(self, chunk: int, line: Row, lease: Lease | None = None) -> None:
        """Add a line to what a chunk took."""
        path = self.path / "timing" / f"{chunk:06d}.csv"
        lines = [*(read_csv(path, TIMING_COLUMNS) or []), line]
        _write_under(lease, path, csv_text(TIMING_COLUMNS, lines).encode(), flush=False)

    def merge(self) -> Path:
        """Make timing.csv, and records.csv in the manifest's order, from the chunks' own; return the latter's path."""
        if (self.path / "timing").exists():
            _merge(self.path / "timing", self.path / "timing.csv", TIMING_COLUMNS)
        return _merge(self.protocol_path / "records", self.protocol_path / "records.csv", COLUMNS)


def _merge(folder: Path, target: Path, columns: Sequence[str]) -> Path:
    """Put the rows of all files of a folder into one, also while other processes do the same.

    Each looks, once its file is in place, whether the folder has changed meanwhile, and then does it again. So the last
    to put its file into place, whoever that is, has put all there is. On a lock one might have to wait when leaving.
    """
    known: dict[tuple[Path, tuple[int, int] | None], list[Row]] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            parts = [(part, _stamp(part)) for part in sorted(folder.glob("[0-9]*.csv"))]
            known = {part: known[part] if part in known else read_csv(part[0], columns) or [] for part in parts}
            content = csv_text(columns, [row for rows in known.values() for row in rows]).encode()
            # Inside the folder: a client of NFS sees anew what is in one that it has changed.
            write_inside(folder, target, content, flush=True)
            if parts == [(part, _stamp(part)) for part in sorted(folder.glob("[0-9]*.csv"))]:
                return target
    except OSError as error:
        raise cannot_write(target, error) from error


def _write_under(lease: Lease | None, path: Path, content: bytes, *, flush: bool = True) -> None:
    """`write_atomically` by way of the lease's folder, which is gone where another process has taken it over."""
    if lease is None:
        return write_atomically(path, content, flush=flush)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_inside(lease.folder, path, content, flush=flush)
    except OSError as error:
        if lease.is_lost(error):
            raise LeaseLostError(lease.name) from error
        raise cannot_write(path, error) from error


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _read_npz(path: Path, *keys: str) -> dict[str, np.ndarray] | None:
    """These arrays of a file, or None where it is not there, damaged, or lacks one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in keys}
    except (OSError, BadZipFile, zlib.error, ValueError, EOFError, KeyError, RuntimeError):  # zipfile's others
        return None
    except (MemoryError, OverflowError, SyntaxError, TokenError):  # of a header that was made up
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


def read_csv(path: Path, columns: Sequence[str] = COLUMNS) -> list[Row] | None:
    """The rows of a chunk's file or of records.csv, as text; None where it is damaged or cannot be read."""
    try:
        text = path.read_bytes().decode()  # as it stands: read_text would turn a carriage return into a line's end
        rows = csv_rows(text)
    except (OSError, ValueError, csv.Error):
        return None
    whole = text.startswith(",".join(columns) + "\n") and text.endswith("\n")
    return rows if whole and all(len(row) == len(columns) and None not in row.values() for row in rows) else None


def run_files(results_dir: Path) -> list[Path]:
    """The run.json of every run of a results folder, finished or not."""
    return sorted(results_dir.glob("runs/*/*/*/*/*/run.json"))


def ok_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows that hold numbers."""
    return [row for row in rows if row["status"] == "ok"]
