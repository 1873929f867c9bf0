"""From a file to the network's input: decoding, preprocessing, streaming."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from .config import INPUT_SIZE, Preprocessing
from .errors import ImageError, UserError, first_line
from .source import ImageSource, open_regular

# Not every format that Pillow knows: a file named .jpg must not reach a PostScript interpreter.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

Found = TypeVar("Found")

# Pillow's own limit is one for the whole process, and first warns; `decode` checks `data.max_pixels` instead.
Image.MAX_IMAGE_PIXELS = None


def decode(source: Path | BinaryIO, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode an image to 8-bit RGB.

    Grey becomes three equal channels, a palette its colours, CMYK what Pillow makes of it, and alpha is dropped (not
    blended), as torchvision's loader does. 16-bit grey is scaled, round(value / 257), where Pillow would clip it; of
    16-bit colour Pillow keeps the high byte. An animation gives its first frame. EXIF orientation is ignored, as in
    ImageNet's evaluation (but for TIFF, where Pillow applies it).

    Args:
        source: The file, or its content opened for reading, which stays open.
        max_pixels: Largest width x height; a larger image is refused before its pixels are decoded.

    Returns:
        (H, W, 3), read-only.

    Raises:
        ImageError: Not a regular file, not an image, truncated, too large, or without a known range of values.
    """
    if isinstance(source, Path):
        with open_regular(source) as file:
            return decode(file, max_pixels=max_pixels)
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(f"too large: {image.width} x {image.height} pixels, data.max_pixels={max_pixels}")
            image.load()
            return _to_rgb(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image: its content is none of {', '.join(FORMATS)}") from None
    except Exception as error:  # on damaged files Pillow raises nearly anything, and one file must not end a run
        reason = str(error) or type(error).__name__
        cut = isinstance(error, EOFError) or "truncated" in reason.lower() or "EOF" in reason
        raise ImageError(f"{'truncated' if cut else 'cannot be decoded'}: {reason}") from error


def preprocess(pixels: NDArray[np.uint8], preprocessing: Preprocessing, size: int = INPUT_SIZE) -> Tensor:
    """Squash an image to a square, without a crop.

    Args:
        pixels: (H, W, 3).
        preprocessing: `plain` is half-pixel bilinear interpolation of the values. `antialias` is Pillow's
            bilinear resize, which filters before it shrinks and rounds to 8 bits again: what torchvision's `Resize`
            does to a Pillow image, and so most published code. (`interpolate(antialias=True)` would not round.)
        size: Width and height of the result.

    Returns:
        float32 (3, size, size) in [0, 1].
    """
    if preprocessing is Preprocessing.antialias:
        pixels = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
    image = torch.tensor(pixels).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    if preprocessing is Preprocessing.plain:
        # With one thread torch takes another kernel than with several, which rounds otherwise: not in what is left of
        # float64. The last bit of an image was enough to move Integrated Gradients' areas by 0.0026.
        image = F.interpolate(image[None].double(), (size, size), mode="bilinear", align_corners=False)[0]
    # The two weights of an interpolation can add up to one rounding more than 1.
    return image.div(255).float().clamp(0, 1).contiguous()


def stream(
    images: Iterable[ImageSource], read: Callable[[ImageSource], Found], *, workers: int, ahead: int
) -> Iterator[tuple[ImageSource, Found]]:
    """Read images in the background and yield them in their order.

    In threads: Pillow and torch release the interpreter's lock, and there are no worker processes that could be killed.
    Each keeps to one core: by itself torch starts as many threads of its own in each of them as there are cores, which
    wait for work in a loop and take the network's cores away.
    Closing the iterator cancels what has not begun and does not wait for the rest.

    Args:
        images: What to read; taken one by one.
        read: What is done in the threads, `read_image` for one; raises nothing.
        workers: Threads; 0 counts as 1.
        ahead: At most this many images are read, or being read, beyond the one last yielded.

    Yields:
        The source, and what was read of it.

    Raises:
        UserError: The system starts no more threads.
    """
    remaining = iter(images)
    waiting: deque[tuple[ImageSource, Future[Found]]] = deque()
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode", initializer=_keep_to_one_core)
    try:
        while True:
            while len(waiting) <= ahead and (source := next(remaining, None)) is not None:
                try:
                    waiting.append((source, pool.submit(read, source)))
                except RuntimeError as error:  # of Thread.start; `read` raises nothing here
                    raise UserError(
                        f"no thread to decode images in ({error}): too little memory or too many processes; "
                        "set data.workers=1, or raise `ulimit -u` and `ulimit -v`"
                    ) from error
            if not waiting:
                return
            source, found = waiting.popleft()
            yield source, found.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _keep_to_one_core() -> None:
    torch.get_num_threads()  # which has torch set this thread's number, and not later, over the limit
    threadpool_limits(1, user_api="openmp")


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise ImageError("floating-point pixels, whose range is not known")
    if image.mode.startswith("I"):  # I;16 in any byte order, or I: 32 bits, in which Pillow reads 16-bit PGM
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"integer pixels from {values.min()} to {values.max()}, beyond 16 bits")
        grey = ((values + 128) // 257).astype(np.uint8)  # round(value / 257); 257 is odd, so there are no ties
        return np.repeat(grey[:, :, None], 3, axis=2)
    image.info.pop("transparency", None)  # `convert` warns that it drops a palette's alpha
    return np.asarray(image.convert("RGB"))


def read_image(source: ImageSource, preprocessing: Preprocessing, max_pixels: int) -> Tensor | ImageError:
    """`decode` and `preprocess`: float32 (3, 224, 224) in [0, 1], or why there is no image."""
    try:
        with source.open() as file:
            return preprocess(decode(file, max_pixels=max_pixels), preprocessing)
    except ImageError as error:
        return error
    except (MemoryError, RuntimeError) as error:  # torch's allocator raises a plain RuntimeError
        return ImageError(f"cannot be brought to the size of the network's input: {first_line(error)}")
