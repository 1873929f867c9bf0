"""What a command would run, what of it is done, and what the rest takes. Loads no network, but to measure its rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd

from .cells import Cell, find_cells, settings_of
from .config import CPU_CHUNK, RunConfig, plain
from .configured import available_method, check_numbers
from .counted import Counted, columns
from .data import Read, read_manifest
from .price import (
    Passes,
    Speed,
    calibrated_speed,
    explaining,
    given_speed,
    measured_speed,
    points,
    scaled_seconds,
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

    Seconds are those of its rows on disk, else those of the same method's other rows by the passes that they took, else
    its passes at the rate of the model's other cells; all of the same model in the same precision.

    Args:
        config: What is asked for.
        read: Reads the manifest; the cells of a sweep share one from `read_once`.
        rate: Prices every cell by its passes: `measured` on this device, or as `price.given_speed` reads it.

    Raises:
        UserError: What `igos-bench run` would refuse before it loads the network.
        UnavailableError: The method has no such resolution, as far as `conf/` says without looking at the network.
    """
    check_numbers(config)
    method = available_method(config)
    manifest = read(config.data)
    images = manifest.take(config.data.limit)
    network = (config.model.name, config.precision.value)
    others = [c for c in _cells(config.results_dir) if (c.model, c.settings["precision"]) == network]
    cells = [cell for cell in others if cell.method == method.name]
    asked = plain(asdict(config))
    settings = settings_of(asked, asked["protocol"])
    wanted = {**settings, "images": manifest.sha256[:8]}
    place = (config.data.name, config.protocol.name, config.resolution)
    here = [cell for cell in cells if (cell.data, cell.protocol, cell.resolution) == place]
    mine = [cell for cell in here if wanted.items() <= cell.settings.items()]
    done = max((int(cell.rows.index.isin([image.image_id for image in images]).sum()) for cell in mine), default=0)
    protocol = config.protocol
    n_points = points(config.resolution, protocol.n_steps, protocol.ranking, protocol.spacing)
    explain, score = explaining(method), scoring(n_points)
    passes = explain and Passes(explain.alone + score.alone, explain.gradients)
    seconds, source = None, ""
    if rate is None:
        tell = partial(scaled_seconds, settings=settings, passes=explain, points=n_points)
        told = ((tell(mine), "its own rows"), (tell(cells), "its method's other rows"))
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
        stored=stored_bytes(len(images), config.resolution, n_points, config.chunk_size or CPU_CHUNK),
    )


def _speed(config: RunConfig, cells: Sequence[Cell], rate: str | None) -> Speed | None:
    if rate is None:
        return calibrated_speed(cells)
    return measured_speed(config) if rate == "measured" else given_speed(rate)


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
    is_told = known > 0 or not unknown
    text += (f"{known:.2f}" if is_told else "?") + " hours left"
    text += f", and {unknown} cells of which no time is known" if unknown else ""
    if shards > 1 and is_told:
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
