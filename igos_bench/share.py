"""This process's share of a run: which chunks are missing, and which of them it may compute beside other processes."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

from .data import ImageSource
from .formats import Row, rows_of
from .lease import Lease, Leases
from .packing import loose_ranges, pack_range, pack_range_if_free
from .packs import Stamp, range_of
from .results import RunDirectory
from .rows import Rows, failed_rows, plain_ids
from .shard import Shard

Report = Callable[[int, Sequence[Row]], None]
Tell = Callable[[str], None]


class Share:
    """The chunks of a run, some of which this process computes and other processes the rest.

    Attributes:
        chunks: Images of each of the run's.
        mine: Those that are this process's to see to: all, or those of its shard.
        rows: Those of each of these that is done, as far as this process knows, of its images alone; as text where they
            were packed before, and all are ok.
        missing: Those that were not done when it last looked. A chunk with an image that failed counts as missing at
            first, so that a run tries again, and as done where another process has committed it since.
        claimed: Leases on chunks, each with the images that `images` yields of it, in the order in which it does.
    """

    def __init__(
        self,
        directory: RunDirectory,
        leases: Leases,
        chunks: Sequence[Sequence[ImageSource]],
        shard: Shard,
        report: Report,
        tell: Tell,
    ) -> None:
        """Look at what is there; `report` and `tell` are those of `runner.execute`."""
        self.directory = directory
        self.leases = leases
        self.chunks = chunks
        self.report = report
        self.tell = tell
        self.claimed: deque[tuple[Lease, Sequence[ImageSource]]] = deque()
        self.mine = range(shard.index, len(chunks), shard.count)
        self.rows: dict[int, list[Row] | bytes] = {i: [] for i in self.mine}
        self._before: dict[int, Stamp] = {}
        for chunk, stamp, rows in directory.scan(self.mine):
            self._before[chunk], self.rows[chunk] = stamp, self._of_chunk(chunk, rows)
        self.missing = [i for i in self.mine if not self._has(i, ("ok",))]
        self._left = Counter(range_of(chunk)[0] for chunk in self.missing)
        self._waits_for: set[str] = set()

    def images(self) -> Iterator[ImageSource]:
        """Pass once over the missing chunks, and yield what to try of those that could be had, claimed one by one."""
        for chunk in list(self.missing):
            if self._is_done_elsewhere(chunk):
                continue
            lease = self.leases.claim(_name(chunk))
            if lease is None:
                continue
            if lease.taken_over:
                self.tell(f"chunk {chunk} is taken over from {lease.taken_over}")
            self.directory.look_anew()
            if self._is_done_elsewhere(chunk):
                self.leases.release(lease)
                continue
            images = self._to_try(chunk)
            self.claimed.append((lease, images))
            yield from images

    def done(self, lease: Lease, rows: list[Row]) -> None:
        """A chunk has been committed here."""
        self.leases.release(lease)
        self._done(chunk := int(lease.name), rows)
        others = [i for i in range_of(chunk) if i < len(self.chunks)]
        if self._is_packed() and not self._left[others[0]] and all(map(self.directory.stamp, others)):
            pack_range(self.directory, self.leases, others[0], self.tell)

    def lost(self, lease: Lease) -> None:
        """A chunk was taken over while it was computed here: its rows are the other's."""
        self.leases.release(lease)
        self.tell(
            f"chunk {int(lease.name)} was taken over by another process, as this one gave no sign of life; "
            f"what it did of it is dropped"
        )

    def wait(self) -> None:
        """Let a moment pass in which others may finish; says for whom, where that is new."""
        holders = {str(holder) for chunk in self.missing if (holder := self.leases.holder(_name(chunk)))}
        if holders - self._waits_for:
            self.tell(
                f"waiting for {len(self.missing)} chunks that are being computed by {', '.join(sorted(holders))}; what "
                f"gives no sign of life is taken over. Ctrl-C leaves, and keeps what is done"
            )
        self._waits_for = holders
        time.sleep(self.leases.pause)

    def is_whole(self) -> bool:
        """Whether every chunk of the run has been tried, the other shards' too; if so, `rows` has them all."""
        others = [i for i in range(len(self.chunks)) if i not in self.mine]
        if not others:
            return True
        self.directory.look_anew()
        if not set(others) <= set(self.directory.records.chunks()):  # before any is read
            return False
        self.rows |= {i: [] for i in others}
        for chunk, _, rows in self.directory.scan(others):
            self.rows[chunk] = self._of_chunk(chunk, rows)
        return all(self._has(i, ("ok", "failed")) for i in others)

    def gathered(self, chunks: Iterable[int]) -> Sequence[Row]:
        """The rows of chunks, of their images alone."""
        parts = [self.rows[chunk] for chunk in chunks]
        rows = Rows(parts)
        return rows if any(isinstance(part, bytes) for part in parts) else list(rows)

    @overload
    def _of_chunk(self, chunk: int, rows: list[Row]) -> list[Row]: ...
    @overload
    def _of_chunk(self, chunk: int, rows: list[Row] | bytes) -> list[Row] | bytes: ...
    def _of_chunk(self, chunk: int, rows: list[Row] | bytes) -> list[Row] | bytes:
        """The rows of a chunk's images alone; as text, where that has just these."""
        wanted = [image.image_id for image in self.chunks[chunk]]
        if isinstance(rows, bytes):
            if plain_ids(rows) == wanted:
                return rows
            rows = rows_of(rows) or []
        asked = set(wanted)
        return [row for row in rows if row["image_id"] in asked]

    def pack(self, *, all_there_is: bool) -> None:
        """Pack what is still loose, or else what is worth it."""
        for first in self._loose_ranges():
            if all_there_is or self._is_worth_packing(first):
                pack_range(self.directory, self.leases, first, self.tell)

    def pack_what_was_left(self) -> None:
        """Pack, before any work, what is worth it of what interrupted processes have left; no other one is waited for.

        A shard that is interrupted again and again would else leave four files a chunk for ever.
        """
        for first in self._loose_ranges():
            if self._is_worth_packing(first):
                pack_range_if_free(self.directory, self.leases, first)

    def _loose_ranges(self) -> list[int]:
        return loose_ranges(self.directory) if self._is_packed() else []

    def _is_worth_packing(self, first: int) -> bool:
        """Whether of a range all is there, or no less is loose than packed.

        Each time it is written anew. Where it grows twofold, the shards of a run that end one after the other write no
        more than twice what it comes to, however many they are.
        """
        loose = self.directory.records.listed()[0].intersection(range_of(first))
        packed = self.directory.records.packed(first).keys()
        return len(loose) >= len(packed) or {i for i in range_of(first) if i < len(self.chunks)} <= loose | packed

    def _is_packed(self) -> bool:
        """Whether the run has so many chunks that they are packed; a small one is easier to look into as it is."""
        return len(self.chunks) >= len(range_of(0))

    def _to_try(self, chunk: int) -> Sequence[ImageSource]:
        """The images of a chunk that failed, where all others have rows; else all."""
        if not self._has(chunk, ("ok", "failed")):
            return self.chunks[chunk]
        failed = {row["image_id"] for row in failed_rows(self.gathered([chunk]))}
        return [image for image in self.chunks[chunk] if image.image_id in failed]

    def _is_done_elsewhere(self, chunk: int) -> bool:
        if self.directory.stamp(chunk) == self._before.get(chunk):
            return False
        self.rows[chunk] = rows = self.directory.read_rows(chunk)
        if not self._has(chunk, ("ok", "failed")):
            return False
        self._done(chunk, rows)
        return True

    def _done(self, chunk: int, rows: list[Row]) -> None:
        self.rows[chunk] = rows = self._of_chunk(chunk, rows)
        self.missing.remove(chunk)
        self._left[range_of(chunk)[0]] -= 1
        self.report(len(self.chunks[chunk]), rows)

    def _has(self, chunk: int, statuses: Sequence[str]) -> bool:
        """Whether all images of a chunk have rows of such a status."""
        rows = self.rows[chunk]
        if isinstance(rows, bytes):
            return True
        there = {row["image_id"] for row in rows if row["status"] in statuses}
        return all(image.image_id in there for image in self.chunks[chunk])


def _name(chunk: int) -> str:
    return f"{chunk:06d}"
