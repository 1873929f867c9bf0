"""A cell by its images, asked for and done, as `plan` and `status` print it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Counted:
    """One cell.

    Attributes:
        requested: Images that are asked for.
        done: Of these.
    """

    method: str
    resolution: int
    model: str
    data: str
    protocol: str
    requested: int
    done: int

    @property
    def left(self) -> int:
        """Images that are not done; those that failed count, as the same command tries them again."""
        return self.requested - self.done


def columns(cells: Sequence[Counted]) -> dict[str, list[str | int]]:
    """The columns of a printed table that say which cells these are, and how far."""
    return {
        "method": [cell.method for cell in cells],
        "resolution": [cell.resolution for cell in cells],
        "model": [cell.model for cell in cells],
        "data": [cell.data for cell in cells],
        "protocol": [cell.protocol for cell in cells],
        "images": [f"{cell.requested:,}" for cell in cells],
        "done": [f"{cell.done:,}" for cell in cells],
    }
