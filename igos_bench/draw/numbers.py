"""Where the numbers beside points stand: so that each is read as its own point's, or else joined to it by a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FONT = 6.0
"""Size of the numbers; this and all lengths here are in typographic points."""

PAD = np.array([3.0, 1.3])  # from a point, whose marker reaches 2 points far, to its number
NEAR = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1.5), (0, -1.5)])
TURNS = (45, 20, 70, 10, 30, 60, 80)  # degrees, as no bar goes
ANGLES = np.radians([quarter + turn for quarter in (0, 90, 180, 270) for turn in TURNS])
FAR = 1.4 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
FARTHEST = 10
ROOM = 8.0  # more of it makes no number clearer
ATTEMPTS = 7  # at other orders in which the points choose


class Spot(NamedTuple):
    """Where a number's centre is from its point, and whether a line has to join them."""

    offset: tuple[float, float]
    joined: bool


def size_of(text: str) -> np.ndarray:
    """Half the width and half the height of a number."""
    return np.array([0.32 * len(text), 0.5]) * FONT


def grid(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A rectangle between two corners, as points (25, 2) that lie in it."""
    return np.stack(np.meshgrid(*np.linspace(low, high, 5).T), axis=-1).reshape(-1, 2)


def spots(
    points: np.ndarray, sizes: np.ndarray, ink: Sequence[np.ndarray], texts: Sequence[np.ndarray], box: np.ndarray
) -> list[Spot]:
    """Find a spot for each number that no ink is under, beside its point if that is by far the nearest to it there.

    Args:
        points: (n, 2).
        sizes: (n, 2), half the width and half the height of each number.
        ink: What is drawn at each point, its marker and bars, as points (m, 2).
        texts: What else is written, likewise.
        box: Lower left and upper right corner, (2, 2), beyond which none may be.
    """
    order = list(range(len(points)))
    best, fewest = _in_turn(order, points, sizes, ink, texts, box)
    failed = fewest
    for _ in range(ATTEMPTS):
        if not fewest:
            break
        order = failed + [i for i in order if i not in failed]  # who finds no room chooses before the others
        found, failed = _in_turn(order, points, sizes, ink, texts, box)
        if len(failed) < len(fewest):
            best, fewest = found, failed
    return [best[i] for i in range(len(points))]


def _in_turn(
    order: Sequence[int],
    points: np.ndarray,
    sizes: np.ndarray,
    ink: Sequence[np.ndarray],
    texts: Sequence[np.ndarray],
    box: np.ndarray,
) -> tuple[dict[int, Spot], list[int]]:
    """`spots` where these points choose one after the other, and those for whose numbers nothing clear was left."""
    written = [np.empty((0, 2)), *texts]
    lines: list[np.ndarray] = []
    found: dict[int, Spot] = {}
    failed = []
    for i in order:
        point, size = points[i], sizes[i]
        others = np.concatenate([*ink[:i], *ink[i + 1 :], *written, *lines])
        rivals = np.delete(points, i, axis=0)
        most, spot = -1, Spot(tuple(size + PAD), joined=True)  # where no other lies within the box
        for reach in range(1, FARTHEST + 1):
            offsets = reach * (NEAR if reach == 1 else FAR) * (size + PAD)
            centres = point + offsets
            room = _gaps(centres, size, others).clip(max=ROOM)
            hidden = _gaps(centres, size, ink[i]) < 0.5
            if reach == 1:
                hidden |= _gaps(centres, size, rivals) < 1.5 * _gaps(centres, size, point[None])
            else:  # the line is not to lead over another point or number
                # 60 places: of fewer, small ones would slip through between two of them.
                along = np.linspace(0.02, 1, 60)[:, None, None] * offsets  # (60, k, 2)
                to_points, to_numbers = (
                    _gaps((point + along).reshape(-1, 2), np.zeros(2), other).reshape(60, -1)
                    for other in (rivals, np.concatenate(written))
                )
                hidden |= (to_points < np.hypot(*along.transpose(2, 0, 1)).clip(max=3)).any(axis=0)
                hidden |= (to_numbers < 1.5).any(axis=0)
            outside = ((centres - size < box[0]) | (centres + size > box[1])).any(axis=1)
            room = np.where(outside, -1, np.where(hidden, 0, room // 1))
            best = int(room.argmax())  # the first of the best: to the upper right where there is room anyway
            if room[best] > most:
                most, spot = room[best], Spot(tuple(offsets[best]), joined=reach > 1 or room[best] == 0)
            if most > 0:
                break
        found[i] = spot
        if most <= 0:
            failed.append(i)
        written.append(grid(point + spot.offset - size, point + spot.offset + size))
        if spot.joined:
            lines.append(point + np.linspace(0, 1, 40)[:, None] * spot.offset)
    return found, failed


def _gaps(centres: np.ndarray, size: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """From the edges of the number at each centre to the nearest ink, (k,); infinite where there is none."""
    beyond = (np.abs(ink - centres[:, None]) - size).clip(min=0)  # (k, m, 2)
    return np.asarray(np.hypot(beyond[..., 0], beyond[..., 1]).min(axis=1, initial=np.inf))
