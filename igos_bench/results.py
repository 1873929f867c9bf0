"""What a run leaves on disk: its key, its chunks, its records, its provenance. It and `packing` alone write results.

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

In a run of `packs.RANGE` chunks or more `packing` puts the files of so many into one, such as maps/000000-000199.zip.

Every file is written whole and renamed into its place, so that none is ever torn; a chunk's rows come last and commit
it. Where one of a chunk's three files is damaged from outside, that chunk is computed again, and no other: so it is
after a power cut too, since maps and curves are not flushed to the disk one by one (some 3 ms each). Of an archive that
is damaged it is the chunks in it. A chunk has files of its own, which only the process that holds its lease changes;
`records.csv` is made anew from `records/`, so that a damaged one loses nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from .atomic import Content, change, write_atomically, write_inside
from .errors import UserError, cannot_write
from .formats import TIMING_COLUMNS, Row, arrays_of, by_id, csv_bytes, npz, ok_rows, read_json, rows_of
from .lease import Lease, LeaseLostError
from .packed_arrays import ArrayFiles
from .packed_rows import RowFiles
from .packs import ChunkFiles, Stamp, range_name
from .paths import below
from .tally import record_files


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


class RunDirectory:
    """The files of one run: one method, resolution, model and data set.

    What is written under a `lease` raises LeaseLostError where another process has taken that over, and is not written.
    """

    def __init__(self, path: Path, protocol_folder: str) -> None:
        """`protocol_folder` is `<protocol>-<key>`."""
        self.path = path
        self.protocol_path = path / protocol_folder
        self.maps = ArrayFiles(path / "maps", ".npz")
        self.timing = RowFiles(path / "timing", TIMING_COLUMNS, lambda _rows: {})
        self.curves = ArrayFiles(self.protocol_path / "curves", ".npz")
        self.records = record_files(self.protocol_path)

    # Provenance

    def read_provenance(self) -> dict[str, Any] | None:
        """run.json, or None where the run has never started."""
        return read_json(self.path / "run.json")

    def write_provenance(self, provenance: Mapping[str, Any], lease: Lease | None = None) -> None:
        """Replace run.json."""
        write_under(lease, self.path / "run.json", (json.dumps(provenance, indent=2) + "\n").encode())

    def write_listing(self, listing: str, lease: Lease | None = None) -> None:
        """Write images.txt, ids one a line, unless it has more: under one key, all are prefixes of the longest."""
        path = self.path / "images.txt"
        if not path.exists() or len(listing.encode()) > path.stat().st_size:
            write_under(lease, path, listing.encode())

    def write_protocol(self, protocol: Mapping[str, Any]) -> None:
        """Every choice of the protocol, beside what was made under it."""
        write_atomically(self.protocol_path / "protocol.json", (json.dumps(protocol, indent=2) + "\n").encode())

    # Chunks

    def write_maps(self, chunk: int, arrays: Mapping[str, np.ndarray], lease: Lease | None = None) -> None:
        """Saliency maps of a chunk; rows, under any protocol, that rest on maps which change are withdrawn first."""
        before, after = (by_id(maps, "saliency_map") for maps in (self.read_maps(chunk), arrays))
        changed = {i for i, old in before.items() if i not in after or not np.array_equal(old, after[i])}
        for records in self._all_records() if changed else ():
            if any(row["image_id"] in changed for row in ok_rows(_rows(records, chunk))):
                # A file without rows, also where none are packed: who packs may stand still, and put them there later.
                write_under(lease, records.loose(chunk), csv_bytes([]))
        write_under(lease, self.maps.loose(chunk), npz(arrays), flush=False)

    def read_maps(self, chunk: int) -> dict[str, np.ndarray] | None:
        """Saliency maps of a chunk, or None where they are not there or damaged."""
        return arrays_of(self.maps.read(chunk), "image_id", "saliency_map")

    def read_curves(self, chunk: int) -> dict[str, np.ndarray] | None:
        """Curves of a chunk and the `hits` they are over, or None where they are not there or damaged."""
        return arrays_of(self.curves.read(chunk), "image_id", "hits", "deletion", "insertion")

    def read_results(self, chunk: int) -> dict[str, dict[str, Any]]:
        """What a chunk has under this protocol, by image id: `row`, `map`, `deletion`, `insertion`, `hits`."""
        rows = ok_rows(_rows(self.records, chunk))
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
        yield from map(self.read_results, self.records.chunks())

    def chunk_of(self) -> dict[str, int]:
        """Image id -> the chunk in which this protocol has a row of it."""
        return {
            row["image_id"]: chunk
            for _, files in self.records.files()
            for chunk, file in files
            for row in rows_of(file.content) or ()
        }

    def is_scored_elsewhere(self, chunk: int) -> bool:
        """Whether a chunk has rows under another protocol."""
        others = (records for records in self._all_records() if records.folder != self.records.folder)
        return any(_rows(records, chunk) for records in others)

    def commit(self, chunk: int, curves: Mapping[str, np.ndarray], rows: list[Row], lease: Lease | None = None) -> None:
        """Commit a chunk: its curves, and then its rows, which make it done."""
        write_under(lease, self.curves.loose(chunk), npz(curves), flush=False)
        self.commit_rows(chunk, rows, lease)

    def commit_rows(self, chunk: int, rows: list[Row], lease: Lease | None = None) -> None:
        """Replace the rows of a chunk, whose maps and curves stay as they are."""
        write_under(lease, self.records.loose(chunk), csv_bytes(rows))

    def look_anew(self) -> None:
        """See rows that were committed just now, on any machine."""
        change(self.records.folder)

    def stamp(self, chunk: int) -> Stamp | None:
        """What changes whenever the rows of a chunk are committed; None where there are none."""
        return self.records.stamp(chunk)

    def read_rows(self, chunk: int) -> list[Row]:
        """The committed rows of a chunk, as text; empty where it is not done, or no longer whole, which it warns of."""
        content = self.records.read(chunk)
        if content is None and not self.records.loose(chunk).exists():
            if self.records.is_damaged(chunk):
                _warn_of(self.records, chunk)
            return []
        return self._whole(chunk, content or b"")

    def scan(self, wanted: Iterable[int] | None = None) -> Iterator[tuple[int, Stamp, list[Row] | bytes]]:
        """Every chunk that has rows, with its `stamp` and its `read_rows`, or their text where all are ok and packed.

        Each folder is listed and each archive opened once: asking for one chunk after the other takes a parallel file
        system minutes. Of `wanted` chunks alone, where it is given; nothing that is others' alone is opened.
        """
        loose = {files: files.listed()[0] for files in (self.maps, self.curves)}
        for first, found in self.records.files(wanted):
            packed = {files: files.packed(first).keys() - there for files, there in loose.items()}
            for chunk, file in found:
                if file.packed and not file.packed["failed"] and all(chunk in there for there in packed.values()):
                    yield chunk, file.stamp, file.content
                else:
                    yield chunk, file.stamp, self._whole(chunk, file.content)
            if self.records.is_damaged(first):
                _warn_of(self.records, first)

    def _whole(self, chunk: int, content: bytes) -> list[Row]:
        """The rows of a chunk, of which `content` is the file, if its arrays are whole."""
        rows = rows_of(content)
        # A torn archive has lost its directory, which stands at its end; an empty one lacks what the rows speak of.
        wanted = {row["image_id"] for row in ok_rows(rows or [])}
        damaged: list[ChunkFiles] = [self.records] if rows is None else []
        for files in (self.maps, self.curves) if rows else ():
            if files.loose(chunk).exists() or not files.is_packed(chunk):
                there = arrays_of(files.read(chunk), "image_id")
                if there is None or not wanted <= set(there["image_id"]):
                    damaged.append(files)
        if damaged:
            _warn_of(damaged[0], chunk)
        return [] if damaged else rows or []

    def failed_ids(self, chunk: int) -> set[str]:
        """The images of a chunk that failed under any protocol."""
        rows = (row for records in self._all_records() for row in _rows(records, chunk))
        return {row["image_id"] for row in rows if row["status"] != "ok"}

    def log_timing(self, chunk: int, line: Row, lease: Lease | None = None) -> None:
        """Add a line to what a chunk took."""
        lines = [*_rows(self.timing, chunk), line]
        write_under(lease, self.timing.loose(chunk), csv_bytes(lines, TIMING_COLUMNS), flush=False)

    def merge(self) -> Path:
        """Make timing.csv, and records.csv in the manifest's order, from the chunks' own; return the latter's path."""
        if self.timing.folder.exists():
            _merge(self.timing, self.path / "timing.csv")
        return _merge(self.records, self.protocol_path / "records.csv")

    def _all_records(self) -> list[RowFiles]:
        """Rows under every protocol."""
        return [record_files(folder.parent) for folder in sorted(self.path.glob("*/records"))]


def _rows(files: RowFiles, chunk: int) -> list[Row]:
    """Those of a chunk; none where they are damaged."""
    return rows_of(files.read(chunk) or b"", files.columns) or []


def _warn_of(files: ChunkFiles, chunk: int) -> None:
    """Of what is damaged; in the same words for all chunks of an archive, so that they are shown once."""
    place = files.place(chunk)
    what = f"chunk {chunk}" if place == files.loose(chunk) else f"what it had of chunks {range_name(chunk)}"
    warnings.warn(f"{place} is missing or damaged: {what} is computed again", stacklevel=4)


def _merge(files: RowFiles, target: Path) -> Path:
    """Put the rows of all files of a folder into one, also while other processes do the same.

    Each looks, once its file is in place, whether the folder has changed meanwhile, and then does it again. So the last
    to put its file into place, whoever that is, has put all there is. On a lock one might have to wait when leaving.
    """

    def write(output: IO[bytes]) -> None:
        output.write(files.header)
        for _, found in files.files():
            for _, file in found:
                if file.packed is not None or rows_of(file.content, files.columns):
                    output.write(file.content.removeprefix(files.header))

    try:
        files.folder.mkdir(parents=True, exist_ok=True)
        while True:
            before = files.state()
            # Inside the folder: a client of NFS sees anew what is in one that it has changed.
            write_inside(files.folder, target, write, flush=True)
            if before == files.state():
                return target
    except OSError as error:
        raise cannot_write(target, error) from error


def write_under(lease: Lease | None, path: Path, content: Content, *, flush: bool = True) -> None:
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


def run_files(results_dir: Path) -> list[Path]:
    """The run.json of every run of a results folder, finished or not."""
    return below(results_dir, "runs/*/*/*/*/*/run.json")
