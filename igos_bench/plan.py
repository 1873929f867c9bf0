"""What a command would run, what of it is done, and how long the rest takes. Loads no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from .cells import Cell, find_cells, settings_of
from .config import RunConfig, plain
from .configured import check_resolution, configured_method
from .data import Manifest, Read, read_manifest


@dataclass(frozen=True)
class Planned:
    """One cell: how many images are asked for and done, and seconds an image; None where nothing tells."""

    method: str
    resolution: int
    model: str
    data: str
    protocol: str
    requested: int
    done: int
    seconds: float | None

    @property
    def hours(self) -> float | None:
        """What is left."""
        left = self.requested - self.done
        return 0.0 if left == 0 else None if self.seconds is None else left * self.seconds / 3600


def plan(config: RunConfig, read: Read = read_manifest) -> Planned:
    """Plan one cell.

    Seconds are those of its rows on disk, else those of the same method on the same model at another resolution.

    Args:
        config: What is asked for.
        read: Reads the manifest; the cells of a sweep share one from `read_once`.

    Raises:
        UserError: What `igos-bench run` would refuse before it loads the network.
        UnavailableError: The method has no such resolution, as far as `conf/` says without looking at the network.
    """
    method = configured_method(config)
    if method.resolutions == "from the model" and (known := tuple(config.model.layers.get(method.name, ()))):
        check_resolution(method.name, config.model.name, config.resolution, known)
    manifest = read(config.data)
    images = manifest.take(config.data.limit)
    place = (config.model.name, method.name)
    cells = [cell for cell in _cells(config.results_dir) if (cell.model, cell.method) == place]
    mine = [cell for cell in cells if _is_this(cell, config, manifest)]
    done = max((int(cell.rows.index.isin([image.image_id for image in images]).sum()) for cell in mine), default=0)
    return Planned(
        method=method.name,
        resolution=config.resolution,
        model=config.model.name,
        data=config.data.name,
        protocol=config.protocol.name,
        requested=len(images),
        done=done,
        seconds=_seconds(mine) or _seconds(cells),
    )


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


def printed(planned: Sequence[Planned]) -> str:
    """The plan for a terminal."""
    table = pd.DataFrame(
        {
            "method": [cell.method for cell in planned],
            "resolution": [cell.resolution for cell in planned],
            "model": [cell.model for cell in planned],
            "data": [cell.data for cell in planned],
            "protocol": [cell.protocol for cell in planned],
            "images": [f"{cell.requested:,}" for cell in planned],
            "done": [f"{cell.done:,}" for cell in planned],
            "s/image": ["?" if cell.seconds is None else f"{cell.seconds:.2f}" for cell in planned],
            "hours left": ["?" if cell.hours is None else f"{cell.hours:.2f}" for cell in planned],
        }
    )
    images, done = sum(cell.requested for cell in planned), sum(cell.done for cell in planned)
    hours = [cell.hours for cell in planned]
    known = sum(hour for hour in hours if hour is not None)
    unknown = sum(hour is None for hour in hours)
    text = f"{table.to_string(index=False)}\n\n{len(planned)} cells, {done:,} of {images:,} images done; "
    text += f"{known:.2f} hours left" + (f", and {unknown} cells of which no time is known" if unknown else "")
    return f"{text}, on the device that made the rows on disk"
