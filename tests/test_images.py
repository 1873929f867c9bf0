"""Decoding of every mode to exact pixels, of garbage to a reason; preprocessing; streaming."""

from __future__ import annotations

import io
import os
import random
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from igos_bench.config import Preprocessing
from igos_bench.errors import ImageError
from igos_bench.images import decode, preprocess, read_image, stream
from igos_bench.source import ImageSource

RED, GREEN, BLUE, WHITE, BLACK = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3, [0] * 3
WIDE = np.array([[0, 128, 129, 385, 386, 65535]], dtype=np.uint16)
WIDE_AS_8_BIT = [0, 0, 1, 1, 2, 255]


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixels(path: Path) -> list[list[int]]:
    """The first row of what is decoded."""
    decoded = decode(path, max_pixels=1000)
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    row: list[list[int]] = decoded[0].tolist()
    return row


def grey(values: list[int]) -> list[list[int]]:
    return [[value] * 3 for value in values]


def palette(transparency: int | bytes | None) -> tuple[Image.Image, dict[str, object]]:
    image = Image.new("P", (3, 1))
    image.putpalette(RED + GREEN + BLUE)
    image.putdata([2, 0, 1])
    return image, {} if transparency is None else {"transparency": transparency}


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff"])
@pytest.mark.filterwarnings("error")
def test_palette(tmp_path: Path, transparency: int | bytes | None) -> None:
    image, options = palette(transparency)
    assert pixels(save(image, tmp_path / "a.png", **options)) == [BLUE, RED, GREEN]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("1", [0, 1], [BLACK, WHITE]),
        ("L", [7, 200], grey([7, 200])),
        ("LA", [(7, 0), (200, 128)], grey([7, 200])),
        ("RGB", [(1, 2, 3), (4, 5, 6)], [[1, 2, 3], [4, 5, 6]]),
        ("RGBA", [(1, 2, 3, 0), (4, 5, 6, 128)], [[1, 2, 3], [4, 5, 6]]),
    ],
)
def test_png_modes(tmp_path: Path, mode: str, values: list[Any], expected: list[list[int]]) -> None:
    image = Image.new(mode, (2, 1))
    image.putdata(values)
    assert pixels(save(image, tmp_path / "a.png")) == expected


def test_cmyk_is_pillows_conversion(tmp_path: Path) -> None:
    image = Image.new("CMYK", (2, 1))
    image.putdata([(255, 0, 0, 0), (0, 0, 0, 255)])
    assert pixels(save(image, tmp_path / "a.tif")) == [[0, 255, 255], BLACK]
    jpeg = save(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "a.jpg")
    with Image.open(jpeg) as opened:
        assert opened.mode == "CMYK"
        assert (decode(jpeg, max_pixels=64) == np.asarray(opened.convert("RGB"))).all()


@pytest.mark.parametrize(
    ("name", "values", "mode"),
    [
        ("a.png", WIDE, "I;16"),
        ("a.tif", WIDE, "I;16"),
        ("a.tif", WIDE.astype(">u2"), "I;16B"),
        ("a.pgm", WIDE, "I"),
        ("a.tif", WIDE.astype(np.int32), "I"),
    ],
)
def test_16_bit_grey_is_scaled(tmp_path: Path, name: str, values: NDArray[np.uint16], mode: str) -> None:
    path = save(Image.fromarray(values), tmp_path / name)
    with Image.open(path) as opened:
        assert opened.mode == mode
    assert pixels(path) == grey(WIDE_AS_8_BIT)


def test_16_bit_colour_keeps_the_high_byte(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    line = b"\0" + struct.pack(">HHH", 0x01FF, 0x8000, 0xFFFF)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(line)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    assert pixels(tmp_path / "a.png") == [[1, 128, 255]]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0.5]], dtype=np.float32), "floating-point pixels"),
        (np.array([[0, 65536]], dtype=np.int32), "integer pixels from 0 to 65536, beyond 16 bits"),
        (np.array([[-1, 5]], dtype=np.int32), "integer pixels from -1 to 5"),
    ],
)
def test_unknown_ranges_are_refused(tmp_path: Path, values: NDArray[np.int32], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(save(Image.fromarray(values), tmp_path / "a.tif"), max_pixels=100)


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (1, 1), tuple(colour)) for colour in (RED, GREEN)]
    for name in ("a.gif", "a.png", "a.webp"):
        path = save(frames[0], tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert pixels(path) == [RED]


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to view
    path = save(Image.fromarray(noise(8, 16)), tmp_path / "a.jpg", exif=exif)
    assert decode(path, max_pixels=128).shape == (8, 16, 3)


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    path = save(Image.fromarray(noise(2, 2)), tmp_path / "a.jpg", format="PNG")
    with path.open("rb") as file:
        assert (decode(file, max_pixels=4) == noise(2, 2)).all()
        assert not file.closed


def test_postscript_is_not_run(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (4, 4)), tmp_path / "a.jpg", format="EPS")
    with pytest.raises(ImageError, match="not an image: its content is none of BMP, GIF, JPEG"):
        decode(path, max_pixels=100)


def test_too_large_is_refused_before_decoding(tmp_path: Path) -> None:
    header = b"P6 30000 30000 255\n"  # without the 2.7 GB that should follow
    (tmp_path / "a.ppm").write_bytes(header)
    with pytest.raises(ImageError, match=r"^too large: 30000 x 30000 pixels, data\.max_pixels=100000000$"):
        decode(tmp_path / "a.ppm", max_pixels=100_000_000)
    path = save(Image.new("L", (10, 10)), tmp_path / "a.png")
    assert decode(path, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(ImageError, match="too large"):
        decode(path, max_pixels=99)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.bmp", "a.ppm", "a.tif"])
def test_truncated(tmp_path: Path, name: str) -> None:
    path = save(Image.fromarray(noise(40, 40)), tmp_path / name)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ImageError, match=r"^truncated: "):
        decode(path, max_pixels=10_000)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_not_an_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"^not an image: "):
        decode(tmp_path / "a.png", max_pixels=10_000)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("BMP", {}),
        ("GIF", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("PPM", {}),
        ("TIFF", {}),
        ("WEBP", {}),
    ],
)
def test_damage_gives_pixels_or_a_reason_and_nothing_else(kind: str, options: dict[str, object]) -> None:
    file = io.BytesIO()
    Image.fromarray(noise(20, 30)).save(file, kind, **options)
    draw = random.Random(0)
    reasons = set()
    for _ in range(150):
        damaged = bytearray(file.getvalue()[: draw.choice([None, draw.randrange(file.tell())])])
        for _ in range(min(len(damaged), 5)):
            end = draw.choice([len(damaged), min(len(damaged), 60)])  # headers are hit more often
            damaged[draw.randrange(end)] = draw.getrandbits(8)
        try:
            assert decode(io.BytesIO(damaged), max_pixels=100_000).shape[2] == 3
        except ImageError as error:
            reasons.add(str(error))
    assert reasons
    assert all("\n" not in reason for reason in reasons)


def half_pixel_bilinear(image: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    """Output pixel i lies at (i + 1/2) * length / size - 1/2 of the input, held within it."""

    def matrix(length: int) -> NDArray[np.float64]:
        at = np.maximum((np.arange(size) + 0.5) * length / size - 0.5, 0)
        low = np.minimum(at.astype(int), length - 1)
        high = np.minimum(low + 1, length - 1)
        weights = np.zeros((size, length))
        np.add.at(weights, (np.arange(size), low), 1 - (at - low))
        np.add.at(weights, (np.arange(size), high), at - low)
        return weights

    rows, columns = matrix(image.shape[0]), matrix(image.shape[1])
    return np.stack([rows @ (image[:, :, channel] / 255) @ columns.T for channel in range(3)])


@pytest.mark.parametrize(("height", "width"), [(375, 500), (512, 512), (224, 224), (100, 37), (1, 1)])
def test_plain_is_half_pixel_bilinear(height: int, width: int) -> None:
    image = noise(height, width)
    result = preprocess(image, Preprocessing.plain)
    assert result.shape == (3, 224, 224)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    np.testing.assert_allclose(result.numpy(), half_pixel_bilinear(image, 224), rtol=0, atol=1e-7)  # of float32 alone


@pytest.mark.parametrize("preprocessing", Preprocessing)
def test_white_stays_within_range(preprocessing: Preprocessing) -> None:
    result = preprocess(np.full((375, 500, 3), 255, dtype=np.uint8), preprocessing)
    assert result.max() <= 1
    assert result.min() > 0.9999


@pytest.mark.parametrize("preprocessing", Preprocessing)
def test_threads_do_not_change_a_bit(preprocessing: Preprocessing) -> None:
    """torch resizes by another kernel where it has one thread."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(preprocess(noise(512, 500), preprocessing))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_antialias_is_pillows_resize() -> None:
    image = noise(375, 500)
    expected = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR))
    result = preprocess(image, Preprocessing.antialias)
    assert torch.equal(result * 255, torch.tensor(expected).permute(2, 0, 1).float())
    assert result.is_contiguous()
    # Averaging shrinks the variance of noise, picking neighbours does so much less.
    assert result.std() < preprocess(image, Preprocessing.plain).std()


@pytest.mark.parametrize("preprocessing", Preprocessing)
def test_right_size_is_left_alone(preprocessing: Preprocessing) -> None:
    image = noise(224, 224)
    assert torch.equal(preprocess(image, preprocessing), torch.tensor(image).permute(2, 0, 1).float() / 255)
    assert preprocess(image, preprocessing, size=32).shape == (3, 32, 32)


def read(
    images: Iterator[ImageSource] | list[ImageSource], *, workers: int = 2, ahead: int = 4
) -> Iterator[tuple[ImageSource, Tensor | ImageError]]:
    one = partial(read_image, preprocessing=Preprocessing.plain, max_pixels=10**6)
    return stream(images, one, workers=workers, ahead=ahead)


def flat(folder: Path, count: int) -> list[ImageSource]:
    """Images whose every value is their number; the even ones are larger, so slower."""
    sources = []
    for i in range(count):
        size = 600 if i % 2 == 0 else 4
        path = save(Image.new("L", (size, size), i), folder / f"{i}.png")
        sources.append(ImageSource(f"{i}.png", None, path))
    return sources


@pytest.mark.parametrize(("workers", "ahead"), [(1, 0), (0, 1), (4, 3), (2, 100)])
def test_stream_keeps_the_order(tmp_path: Path, workers: int, ahead: int) -> None:
    images = flat(tmp_path, 12)
    found = list(read(images, workers=workers, ahead=ahead))
    assert [source for source, _ in found] == images
    for i, (_, image) in enumerate(found):
        assert isinstance(image, Tensor)
        assert torch.allclose(image, torch.tensor(i / 255))


def test_stream_yields_the_reasons_of_bad_images(tmp_path: Path) -> None:
    good = flat(tmp_path, 2)
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("hello")
    bad = [ImageSource(name, None, tmp_path / name) for name in ("fifo.png", "folder.png", "text.png", "gone.png")]
    results = [image for _, image in read([good[0], *bad, good[1]])]
    assert isinstance(results[0], Tensor)
    assert isinstance(results[-1], Tensor)
    assert all(isinstance(image, ImageError) for image in results[1:-1])
    assert [str(image).split(":")[0] for image in results[1:-1]] == [
        "not a regular file but a fifo, socket or device",
        "not a regular file but a folder",
        "not an image",
        "no such file",
    ]


class AskingSource(ImageSource):
    """Asks the thread that opens it how many of torch's it would compute with."""

    threads: ClassVar[list[int]] = []

    def open(self) -> BinaryIO:
        self.threads.append(torch.get_num_threads())
        return super().open()


def test_a_decoding_thread_keeps_to_one_core_and_the_others_to_theirs(tmp_path: Path) -> None:
    images: list[ImageSource] = [AskingSource(one.image_id, None, one.path) for one in flat(tmp_path, 6)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert len(list(read(images))) == 6
        assert set(AskingSource.threads) == {1}
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


class CountedSource(ImageSource):
    """Counts how often it is opened."""

    opened: ClassVar[list[str]] = []

    def open(self) -> BinaryIO:
        self.opened.append(self.image_id)
        return self.path.open("rb")


def test_read_ahead_is_bounded(tmp_path: Path) -> None:
    CountedSource.opened.clear()
    taken: list[str] = []
    sources = [CountedSource(source.image_id, None, source.path) for source in flat(tmp_path, 20)]

    def counted() -> Iterator[ImageSource]:
        for source in sources:
            taken.append(source.image_id)
            yield source

    images = read(counted(), workers=4, ahead=3)
    assert not taken
    for consumed in range(1, 16):
        next(images)
        limit = time.monotonic() + 10
        while len(CountedSource.opened) < consumed + 3 and time.monotonic() < limit:
            time.sleep(0.01)  # the background really works on
        time.sleep(0.02)  # and could run further, were it not bounded
        assert len(CountedSource.opened) == len(taken) == consumed + 3


class SlowSource(ImageSource):
    """Opens only when told to."""

    gate: ClassVar[threading.Event] = threading.Event()

    def open(self) -> BinaryIO:
        if self.image_id != "0.png":
            self.gate.wait(30)
        return self.path.open("rb")


def test_closing_stops_promptly(tmp_path: Path) -> None:
    SlowSource.gate.clear()
    before = set(threading.enumerate())
    images = read([SlowSource(source.image_id, None, source.path) for source in flat(tmp_path, 10)], ahead=9)
    try:
        next(images)
        started = time.monotonic()
        images.close()  # type: ignore[attr-defined]
        assert time.monotonic() - started < 5
    finally:
        SlowSource.gate.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
