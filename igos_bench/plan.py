"""What a command would run, what of it is done, and what the rest takes. Loads no network, but to measure its rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from .cells import Cell, find_cells, settings_of
from .config import RunConfig, plain
from .configured import available_method
from .counted import Counted, columns
from .data import Manifest, Read, read_manifest
from .price import (
    Passes,
    Speed,
    calibrated_speed,
    explaining,
    given_speed,
    measured_speed,
    points,
    scoring,
    stored_bytes,
)
from .shard import spread


@dataclass(frozen=True)
class Planned(Counted):
    """One cell.

    Attributes:
        passes: For one image, explaining and scoring; None for a method that is not ours.
        seconds: An image; None where nothing tells.
        source: What tells, for people.
        stored: Bytes at most of the maps, curves and rows of all images.
    """

    passes: Passes | None
    seconds: float | None
    source: str
    stored: int

    @property
    def hours(self) -> float | None:
        """What is left."""
        return 0.0 if self.left == 0 else None if self.seconds is None else self.left * self.seconds / 3600


def words_of_plan(words: Sequence[str]) -> tuple[str | None, int, list[str]]:
    """What `plan` alone understands, `rate=`, and how many `shards=` a cell has; and the words of the cells themselves.

    Raises UserError where the number of shards is none.
    """
    rates = [word.removeprefix("rate=") for word in words if word.startswith("rate=")]
    shards = [word for word in words if word.startswith("shards=")]
    spread(shards)
    count = int(shards[-1].removeprefix("shards=")) if shards else 1
    rest = [word for word in words if not word.startswith(("rate=", "shards=", "shard="))]
    return rates[-1] if rates else None, count, rest


def plan(config: RunConfig, read: Read = read_manifest, rate: str | None = None) -> Planned:
    """Plan one cell.

    Seconds are those of its rows on disk, else those of the same method on the same model at another resolution, else
    its passes at the rate of the model's other cells.

    Args:
        config: What is asked for.
        read: Reads the manifest; the cells of a sweep share one from `read_once`.
        rate: Prices every cell by its passes: `measured` on this device, or as `price.given_speed` reads it.

    Raises:
        UserError: What `igos-bench run` would refuse before it loads the network.
        UnavailableError: The method has no such resolution, as far as `conf/` says without looking at the network.
    """
    method = available_method(config)
    manifest = read(config.data)
    images = manifest.take(config.data.limit)
    others = [cell for cell in _cells(config.results_dir) if cell.model == config.model.name]
    cells = [cell for cell in others if cell.method == method.name]
    mine = [cell for cell in cells if _is_this(cell, config, manifest)]
    done = max((int(cell.rows.index.isin([image.image_id for image in images]).sum()) for cell in mine), default=0)
    protocol = config.protocol
    n_points = points(config.resolution, protocol.n_steps, protocol.ranking, protocol.spacing)
    explain, score = explaining(method), scoring(n_points)
    passes = explain and Passes(explain.alone + score.alone, explain.gradients)
    seconds, source = None, ""
    if rate is None:
        told = ((_seconds(mine), "its own rows"), (_seconds(cells), "its method's other rows"))
        seconds, source = next((found for found in told if found[0] is not None), (None, ""))
    if seconds is None and passes and (speed := _speed(config, others, rate)):
        seconds, source = speed.seconds(passes), speed.source
    return Planned(
        method=method.name,
        resolution=config.resolution,
        model=config.model.name,
        data=config.data.name,
        protocol=config.protocol.name,
        requested=len(images),
        done=done,
        passes=passes,
        seconds=seconds,
        source=source,
        stored=len(images) * stored_bytes(config.resolution, n_points),
    )


def _speed(config: RunConfig, cells: Sequence[Cell], rate: str | None) -> Speed | None:
    if rate is None:
        return calibrated_speed([cell for cell in cells if cell.settings["precision"] == config.precision.value])
    return measured_speed(config) if rate == "measured" else given_speed(rate)


def _is_this(cell: Cell, config: RunConfig, manifest: Manifest) -> bool:
    asked = plain(asdict(config))
    place = (cell.data, cell.protocol, cell.resolution) == (config.data.name, config.protocol.name, config.resolution)
    images = {"images": manifest.sha256[:8]}
    wanted = {**settings_of(asked, asked["protocol"]), **images}
    return place and wanted.items() <= cell.settings.items()


def _seconds(cells: Sequence[Cell]) -> float | None:
    seconds = [cell.rows["explain_seconds"] + cell.rows["score_seconds"] for cell in cells]
    known = pd.concat(seconds).dropna() if seconds else pd.Series(dtype=float)
    return float(known.mean()) if len(known) else None


@lru_cache(maxsize=1)
def _cells(results_dir: str) -> list[Cell]:
    return find_cells(Path(results_dir))


def printed(planned: Sequence[Planned], shards: int = 1) -> str:
    """The plan for a terminal; `shards` is over how many processes each cell is spread."""
    table = pd.DataFrame(
        {
            **columns(planned),
            "passes": ["?" if cell.passes is None else _passes(cell.passes) for cell in planned],
            "s/image": ["?" if cell.seconds is None else f"{cell.seconds:.2f}" for cell in planned],
            "hours left": ["?" if cell.hours is None else f"{cell.hours:.2f}" for cell in planned],
            "stored": [_size(cell.stored) for cell in planned],
            "known by": [cell.source or "-" for cell in planned],
        }
    )
    images, done = sum(cell.requested for cell in planned), sum(cell.done for cell in planned)
    hours = [cell.hours for cell in planned]
    known = sum(hour for hour in hours if hour is not None)
    unknown = sum(hour is None for hour in hours)
    text = f"{table.to_string(index=False)}\n\n{len(planned)} cells, {done:,} of {images:,} images done; "
    text += f"{known:.2f} hours left" + (f", and {unknown} cells of which no time is known" if unknown else "")
    if shards > 1:
        text += f" by one process, {known / shards:.2f} by {shards} that are as fast each"
    text += f"; at most {_size(sum(cell.stored for cell in planned))} of maps, curves and rows"
    text += "\npasses: forward + forward and backward, an image, explaining and scoring"
    if any("rows" in cell.source or "cells" in cell.source for cell in planned):
        text += "; what rows tell is of the device that made them"
    if unknown:
        text += (
            "\nno time is known: rate=measured measures this device, rate=FORWARD,GRADIENT (inputs a second) gives one"
        )
    return text


def _passes(passes: Passes) -> str:
    return f"{passes.alone:,.0f} + {passes.gradients:,.0f}"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
