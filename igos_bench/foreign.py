"""Saliency maps that were made elsewhere: `igos-bench score maps=FOLDER name=NAME`.

The map of an image is `FOLDER/<image_id>.npy`, (r,r) or (1,r,r), higher = more evidence for the predicted class, of any
real type; it is scored as float32. One finer than the 224 x 224 pixels that the network sees is averaged down to them:
elements below a pixel could be ranked but not shown. All that are asked for are checked before the first is scored, one
after the other, and read again chunk by chunk, so that memory holds a chunk's.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from .config import INPUT_SIZE
from .errors import ImageError, UserError, first_line
from .methods import method_names
from .paths import existing, is_folder
from .results import check_folder_name
from .source import open_regular

SAVE = 'write it with numpy.save(FILE, saliency_map.astype("float32"))'


@dataclass(frozen=True)
class MapFolder:
    """A folder of checked maps; it stands where a run otherwise has its method.

    Attributes:
        name: What the table calls the method that made them.
        folder: Where they are.
        resolution: r, of every map.
        sha256: Over the ids and float32 values of all that were asked for, in the manifest's order.
        digests: The sha256 of each map's values, by image id.
    """

    version: ClassVar[int] = 1  # goes up if the same files are ever read as other maps
    name: str
    folder: Path
    resolution: int
    sha256: str
    digests: Mapping[str, bytes] = field(repr=False)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Those that there are, as a method has them."""
        return (self.resolution,)

    def read(self, image_ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Maps (n,1,r,r) of these images, with their ids, as `RunDirectory.read_maps` returns a chunk's.

        Raises:
            UserError: A map is no longer what was checked.
        """
        maps = []
        for image_id in image_ids:
            path = map_path(self.folder, image_id)
            maps.append(read_map(path))
            if _digest(maps[-1]) != self.digests[image_id]:
                raise UserError(f"{path} was changed while it was being scored: start the same command again")
        return {"image_id": np.array(image_ids, dtype=np.str_), "saliency_map": np.array(maps, dtype=np.float32)}


def check_maps(maps: str | None, name: str | None, image_ids: Sequence[str]) -> MapFolder:
    """Read and check the maps of all these images.

    Args:
        maps: The folder.
        name: Of the method that made them.
        image_ids: At least one.

    Raises:
        UserError: Only one of `maps` and `name` is given, the name is taken or no name of a folder, an image has no
            map, a map cannot be used (see `read_map`), or two differ in resolution.
    """
    if maps is None:
        raise UserError(f"name={name} names maps that were made elsewhere: say where they are with maps=FOLDER")
    if name is None:
        raise UserError(f"maps={maps} needs name=NAME, what the table shall call the method that made them")
    if name in (taken := method_names()):
        raise UserError(f"name={name} is a method of igos-bench: choose another than {', '.join(taken)}")
    check_folder_name("name", name)
    folder = existing("maps", maps, "the folder that holds a .npy an image")
    if not is_folder(folder):
        raise UserError(f"maps={maps} is a file, not a folder: give the folder that holds a .npy an image")
    paths = [map_path(folder, image_id) for image_id in image_ids]
    missing = [i for i, path in enumerate(paths) if not os.path.lexists(path)]
    if missing:
        raise UserError(
            f"maps={maps} has no map for {len(missing):,} of {len(paths):,} images, such as {image_ids[missing[0]]} "
            f"(looked for {paths[missing[0]]}): add them, or score fewer images with data.list=FILE, a file with one "
            "image id a line, or data.limit=N, the first N"
        )
    digests: dict[str, bytes] = {}
    whole = hashlib.sha256()
    resolution = 0
    for image_id, path in zip(image_ids, paths, strict=True):
        found = read_map(path)
        resolution = resolution or found.shape[-1]
        if found.shape[-1] != resolution:
            raise UserError(
                f"{path} is {found.shape[-1]} x {found.shape[-1]}, but {paths[0]} is {resolution} x {resolution}: "
                "put each resolution in a folder of its own and score one at a time"
            )
        digests[image_id] = _digest(found)
        whole.update(f"{image_id}\n".encode() + digests[image_id])
    return MapFolder(name, folder, resolution, whole.hexdigest(), digests)


def map_path(folder: Path, image_id: str) -> Path:
    """Where the map of an image is; an id with `/` lies in subfolders."""
    return folder / f"{image_id}.npy"


def read_map(path: Path) -> np.ndarray:
    """One map, float32 (1,r,r) with r <= 224, finite.

    Raises:
        UserError: It is not a .npy, or one with pickled objects; not real numbers; neither (r,r) nor (1,r,r); or not
            finite as float32.
    """
    try:
        with open_regular(path) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except ImageError as error:
        raise UserError(f"{path} is no map: {error}; {SAVE}") from None
    except (OSError, ValueError, EOFError, MemoryError, OverflowError, SyntaxError, TokenError) as error:
        raise UserError(f"{path} cannot be read as a .npy ({first_line(error)}): {SAVE}") from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"{path} holds {array.dtype}, expected real numbers: {SAVE}")
    shape, side = array.shape, array.shape[-1] if array.ndim else 0
    if shape not in ((side, side), (1, side, side)) or side == 0:
        raise UserError(f"{path} has the shape {shape}, expected (r, r) or (1, r, r): write one square map an image")
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(array, dtype="<f4").reshape(1, side, side)
    if bad := int((~np.isfinite(found)).sum()):
        raise UserError(
            f"{path} holds {bad:,} values of {found.size:,} that are NaN or infinite as float32: mend them, or leave "
            "the image out with data.list=FILE, a file with one image id a line"
        )
    if side <= INPUT_SIZE:
        return found
    return np.asarray(F.interpolate(torch.from_numpy(found)[None], size=INPUT_SIZE, mode="area")[0].numpy())


def _digest(saliency_map: np.ndarray) -> bytes:
    return hashlib.sha256(saliency_map.tobytes()).digest()
