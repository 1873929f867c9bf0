"""From a file to the network's input: decoding, preprocessing, streaming."""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from .config import Preprocessing
from .data import ImageSource
from .errors import ImageError

# `decode` checks the size itself, against `data.max_pixels`.
Image.MAX_IMAGE_PIXELS = None


def decode(file: BinaryIO, *, max_pixels: int) -> np.ndarray:
    """Decode an image to 8-bit RGB, (H,W,3) uint8.

    Alpha is dropped, 16-bit values are scaled to 8, of an animation the first frame is taken, and EXIF orientation is
    ignored, as ImageNet's evaluation does.

    Raises:
        ImageError: Not an image, truncated, too large, or of a kind that is not read.
    """
    try:
        with Image.open(file) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(f"too large: {image.width} x {image.height} pixels, data.max_pixels={max_pixels}")
            image.load()
            if image.mode == "F":
                raise ImageError("floating-point pixels, whose range is not known")
            if image.mode.startswith("I"):  # 16 bits, or 32 that hold 16
                values = np.asarray(image).astype(np.int64)
                if values.min() < 0 or values.max() > 65535:
                    raise ImageError("32-bit pixels beyond 16 bits, whose range is not known")
                grey = ((values + 128) // 257).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not an image that Pillow reads") from None
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, zlib.error, MemoryError) as error:
        raise ImageError(f"cannot be decoded: {error}") from error


def preprocess(pixels: np.ndarray, preprocessing: Preprocessing, size: int = 224) -> Tensor:
    """Squash (H,W,3) uint8 to float32 (3,size,size) in [0, 1], without a crop.

    `plain` is half-pixel bilinear without antialiasing; `antialias` is Pillow's bilinear resize of the 8-bit image,
    which most other code uses.
    """
    if preprocessing is Preprocessing.antialias:
        pixels = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous().float() / 255
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(image, size=(size, size), mode="bilinear", align_corners=False)[0]


def read(path: Path, preprocessing: Preprocessing, max_pixels: int) -> Tensor | ImageError:
    """Read one file; what is wrong with it is returned, not raised."""
    try:
        if not path.is_file():  # a fifo would wait for ever
            kind = "does not exist" if not path.exists() else "is not a regular file"
            return ImageError(f"{path.name} {kind}")
        with path.open("rb") as file:
            return preprocess(decode(file, max_pixels=max_pixels), preprocessing)
    except OSError as error:
        return ImageError(f"cannot be read: {error.strerror}")
    except ImageError as error:
        return error


def stream(
    images: Sequence[ImageSource], *, preprocessing: Preprocessing, max_pixels: int, workers: int, ahead: int
) -> Iterator[tuple[ImageSource, Tensor | ImageError]]:
    """Yield the images in their order, decoded in threads at most `ahead` images before they are asked for.

    Threads, because Pillow and torch release the interpreter's lock, and no worker process can be killed.
    """
    waiting: deque[tuple[ImageSource, Future[Tensor | ImageError]]] = deque()
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode")
    try:
        rest = iter(images)
        while True:
            while len(waiting) < max(1, ahead) and (source := next(rest, None)) is not None:
                waiting.append((source, pool.submit(read, source.path, preprocessing, max_pixels)))
            if not waiting:
                return
            source, result = waiting.popleft()
            yield source, result.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
