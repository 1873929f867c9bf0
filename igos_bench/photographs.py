"""Where the images of a run are now, from what the run recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from .config import DataConfig, Preprocessing
from .data import read_manifest
from .errors import ImageError, UserError
from .images import decode, preprocess
from .source import ImageSource


class Photographs:
    """The images of one data set, as a run's run.json names it.

    Attributes:
        trouble: What a reader has to know, that the data set is gone or is not what the run was made on; or None.
    """

    def __init__(self, run: Mapping[str, Any]) -> None:
        """Look for them; paths are relative to the folder that the run was started in."""
        self.trouble: str | None = None
        self._sources: dict[str, ImageSource] = {}
        try:
            config = data_of(run)
            self._where = config.root or config.layout
            manifest = read_manifest(config)
        except (UserError, KeyError, TypeError) as error:
            self.trouble = str(error) if isinstance(error, UserError) else "its run.json does not say where they were"
            self._reason = f"not found: {self.trouble}"
            return
        self._sources = {source.image_id: source for source in manifest.images}
        self._reason = f"no such image in {self._where} any more"
        if manifest.sha256 != run.get("manifest_sha256"):
            self.trouble = f"the images in {self._where} are not all those that the run was made on: their hash differs"

    def find(self, image_id: str) -> ImageSource | str:
        """An image, or why it is not there."""
        return self._sources.get(image_id, self._reason)


def data_of(run: Mapping[str, Any]) -> DataConfig:
    """The data that a run was made on, its paths as they hold from here; raises KeyError where it does not say."""
    recorded = run["config"]["data"]
    known = {field.name: recorded[field.name] for field in fields(DataConfig) if field.name in recorded}
    start = Path(run.get("folder", ""))
    paths = {key: str(start / known[key]) for key in ("root", "labels", "list") if known.get(key)}
    return DataConfig(**{**known, **paths})


def read_photograph(source: ImageSource, preprocessing: str, max_pixels: int) -> Tensor:
    """What the network saw of it, (3, 224, 224) in [0, 1]; raises ImageError."""
    if preprocessing not in list(Preprocessing):
        raise ImageError(f"its run.json says preprocessing={preprocessing}, which is unknown here")
    with source.open() as file:
        return preprocess(decode(file, max_pixels=max_pixels), Preprocessing(preprocessing))
