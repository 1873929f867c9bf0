"""What the rows of a run come to, without reading those that are packed: their archives say it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .formats import COLUMNS, Row, ok_rows
from .packed_rows import RowFiles


@dataclass
class Tally:
    """What committed rows come to: how many are done, how many failed and why, and the seconds of those done."""

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, said: Mapping[str, Any]) -> None:
        """Add what `summary` said of a chunk."""
        self.done += said["done"]
        self.failed.update(said["failed"])
        self.seconds += said["seconds"]


def summary(rows: list[Row]) -> dict[str, Any]:
    """What the rows of a chunk come to."""
    ok = ok_rows(rows)
    return {
        "done": len(ok),
        "failed": Counter(row["error"] for row in rows if row["status"] != "ok"),
        "seconds": sum(float(row["explain_seconds"] or 0) + float(row["score_seconds"] or 0) for row in ok),
    }


def tally(protocol_path: Path) -> Tally:
    """Count the committed rows of a run under one protocol; a file that is damaged counts as not done."""
    found = Tally()
    for said in record_files(protocol_path).summaries():
        found.add(said)
    return found


def record_files(protocol_path: Path) -> RowFiles:
    """The rows of a run's chunks under one protocol."""
    return RowFiles(protocol_path / "records", COLUMNS, summary)
