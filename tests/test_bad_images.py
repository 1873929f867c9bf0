"""A folder of everything that people's folders have in them: each an image rightly read, or a row with its reason."""

from __future__ import annotations

import csv
import io
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from igos_bench.images import decode

Pixels = NDArray[np.uint8]

ROOT = Path(__file__).parent.parent
HEIGHT, WIDTH = 40, 60
WORDS = (
    "data=folder", "data.root=images", "data.workers=3", "model=timm", "model.architecture=test_resnet",
    "model.weights=null", "method=grad_cam", "resolution=7", "protocol.n_steps=2", "chunk_size=16", "results_dir=out",
)  # fmt: skip


def photograph(height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """Colours that run smoothly, which a JPEG keeps, and some noise."""
    y, x = np.mgrid[0:height, 0:width]
    colours = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=-1)
    return np.clip(colours + np.random.default_rng(0).normal(0, 5, colours.shape), 0, 255).astype(np.uint8)


PHOTOGRAPH = photograph()


def encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    (image or Image.fromarray(PHOTOGRAPH)).save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, lines: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG as its specification has it; `lines` are deflated here, `more` are chunks before them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), *more, (b"IDAT", lines), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def bomb() -> bytes:
    """30,000 x 30,000 pixels of one colour, a bit each: 112 MB of zeros, a line's filter byte and then its pixels."""
    packer = zlib.compressobj(9)
    lines = b"".join(packer.compress(bytes(3751 * 1000)) for _ in range(30)) + packer.flush()
    return png(30_000, 30_000, 1, 0, lines)


def by_opencv(content: bytes) -> Pixels:
    """Another decoder's RGB."""
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return np.asarray(found[:, :, ::-1], dtype=np.uint8)


def images() -> dict[str | bytes, tuple[bytes, Pixels]]:
    """File name -> its content, and the pixels that it stands for, known from their making or from OpenCV."""
    jpeg, wide = encoded("JPEG", quality=95), np.arange(WIDTH, dtype=np.uint16) * 1000
    whole_png, gif = encoded("PNG"), [Image.new("RGB", (9, 7), colour) for colour in ("#ff0000", "#00ff00")]
    # Row-major: 0, 1, 2, 0, 1, 2, ...; alpha of colour 1 is 0, of colour 2 is 128.
    indices = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 3
    colours = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 30]], dtype=np.uint8)
    palette = (b"PLTE", colours.tobytes()), (b"tRNS", bytes([255, 0, 128]))
    palette_lines = b"".join(b"\0" + bytes(row) for row in indices.astype(np.uint8))
    high, low = PHOTOGRAPH, PHOTOGRAPH[::-1]
    deep_lines = b"".join(b"\0" + np.stack([h, k], -1).tobytes() for h, k in zip(high, low, strict=True))
    cmyk = np.concatenate([255 - PHOTOGRAPH, np.zeros_like(PHOTOGRAPH[..., :1])], axis=-1)  # no black: R = 255 - C
    flat = {
        "whole.jpg": (jpeg, by_opencv(jpeg)),
        "whole.PNG": (whole_png, PHOTOGRAPH),
        "progressive.jpeg": ((progressive := encoded("JPEG", progressive=True)), by_opencv(progressive)),
        "png named.jpg": (whole_png, PHOTOGRAPH),
        "jpeg named.png": (jpeg, by_opencv(jpeg)),
        "animated.gif": (
            encoded("GIF", gif[0], save_all=True, append_images=gif[1:]),
            np.full((7, 9, 3), (255, 0, 0), np.uint8),
        ),
        "16 bit grey.png": (
            png(WIDTH, 1, 16, 0, zlib.compress(b"\0" + wide.astype(">u2").tobytes())),
            np.repeat(np.round(wide / 257)[None, :, None], 3, axis=2).astype(np.uint8),
        ),
        "16 bit colour.png": (png(WIDTH, HEIGHT, 16, 2, zlib.compress(deep_lines)), high),
        "cmyk.tif": (encoded("TIFF", Image.fromarray(cmyk, "CMYK")), PHOTOGRAPH),
        "palette with transparency.png": (
            png(WIDTH, HEIGHT, 8, 3, zlib.compress(palette_lines), *palette),
            colours[indices],
        ),
        "1x1.png": (encoded("PNG", Image.new("RGB", (1, 1), (1, 2, 3))), np.array([[[1, 2, 3]]], dtype=np.uint8)),
        "1x5000.png": (encoded("PNG", Image.fromarray(photograph(5000, 1))), photograph(5000, 1)),
        "5000x1.bmp": (encoded("BMP", Image.fromarray(photograph(1, 5000))), photograph(1, 5000)),
        "without its last bytes.png": (whole_png[:-12], PHOTOGRAPH),  # IEND: all pixels are there
        b"latin \xe9\xff.png": (whole_png, PHOTOGRAPH),
        "new\nline.png": (whole_png, PHOTOGRAPH),
        'comma, "quote".png': (whole_png, PHOTOGRAPH),
        "+1.png": (whole_png, PHOTOGRAPH),
        "@SUM(A1).png": (whole_png, PHOTOGRAPH),
    }
    cmyk_jpeg = encoded("JPEG", Image.fromarray(cmyk, "CMYK"), quality=100)
    return {**flat, "cmyk.jpg": (cmyk_jpeg, PHOTOGRAPH)}


def others() -> dict[str, tuple[bytes, str]]:
    """File name -> its content, and the reason that its row must have."""
    jpeg, whole_png = encoded("JPEG"), encoded("PNG")
    none = "not an image: its content is none of"
    cut_short = {
        **{f"jpeg {percent}%.jpg": jpeg[: len(jpeg) * percent // 100] for percent in (30, 50, 70, 90)},
        "jpeg but a byte.jpg": jpeg[:-1],
        **{f"png {percent}%.png": whole_png[: len(whole_png) * percent // 100] for percent in (10, 40, 60, 80, 95)},
    }
    return {
        **{name: (content, "truncated: ") for name, content in cut_short.items()},
        "no bytes.jpg": (b"", none),
        "zeros.jpg": (bytes(5000), none),
        "text.jpg": (b"see the attached picture\n", none),
        "html.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", none),
        "svg.png": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', none),
        "postscript.png": (encoded("EPS"), none),
        "only the signature.png": (b"\x89PNG\r\n\x1a\n", none),
        "bomb.png": (bomb(), "too large: 30000 x 30000 pixels, data.max_pixels=100000000"),
        "float.tif": (encoded("TIFF", Image.new("F", (4, 4), 0.5)), "floating-point pixels, whose range is not known"),
        "=cmd.jpg": (b"", none),
        "-2+3.jpg": (b"", none),
    }


def no_files(folder: Path) -> dict[str, str]:
    """Make what no ordinary file is; name -> reason. Of a link in a circle open fails for root too."""
    os.mkfifo(folder / "fifo.jpg")
    (folder / "link to nothing.jpg").symlink_to(folder / "gone.jpg")
    (folder / "x.jpg").mkdir()
    (folder / "circle.jpg").symlink_to("circle back.jpg")
    (folder / "circle back.jpg").symlink_to("circle.jpg")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "memory.png").symlink_to("/proc/self/mem")  # opens; reading its first byte is an error, also for root
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str((folder / "socket.png").relative_to(Path.cwd())))  # the path of a socket must be short
    special = "not a regular file but a fifo, socket or device"
    return {
        "fifo.jpg": special,
        "socket.png": special,
        "device.png": special,
        "x.jpg": "not a regular file but a folder",
        "link to nothing.jpg": "a link to nothing",
        "circle.jpg": "cannot be opened: Too many levels of symbolic links",
        "circle back.jpg": "cannot be opened: Too many levels of symbolic links",
        "memory.png": "cannot be decoded: [Errno 5] Input/output error",
    }


def image_id(name: str | bytes) -> str:
    """What the README says of names that cannot be printed."""
    return {b"latin \xe9\xff.png": "latin \\udce9\\udcff.png", "new\nline.png": "new\\nline.png"}.get(name, str(name))


@pytest.mark.parametrize("name", images(), ids=lambda name: image_id(name))
def test_pixels_are_those_of_another_decoder(tmp_path: Path, name: str | bytes) -> None:
    content, expected = images()[name]
    found = decode(io.BytesIO(content), max_pixels=10_000)
    assert found.shape == expected.shape
    is_jpeg = content.startswith(b"\xff\xd8")
    # Another build of the decoder may round otherwise; what stands in a JPEG is 2 from what went in, at this quality.
    assert np.abs(found.astype(int) - expected).max() <= (4 if name == "cmyk.jpg" else 1 if is_jpeg else 0)


def as_anybody() -> list[str]:
    """What takes from root that it may read everything."""
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def test_every_file_is_a_row_and_the_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    good, bad = images(), others()
    for name, (content, _) in {**good, **bad}.items():
        Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name)))).write_bytes(content)  # noqa: PTH118
    reasons = {name: reason for name, (_, reason) in bad.items()} | no_files(folder)
    secret = folder / "secret.png"
    secret.write_bytes(encoded("PNG"))
    secret.chmod(0)
    reasons["secret.png"] = "cannot be opened: Permission denied"
    readable = {image_id(name) for name in good}
    assert len(reasons) >= 30
    (folder / "notes.txt").touch()

    command = [*as_anybody(), sys.executable, "-m", "igos_bench", *WORDS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 3, ended.stderr
    assert "left out of data.root=images, having no image's ending: 1 .txt" in ended.stderr
    assert "Traceback" not in ended.stderr
    (records,) = tmp_path.glob("out/runs/**/records.csv")
    with records.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # A name that a spreadsheet would run may have a quote before it.
    found = {row["image_id"].removeprefix("'"): row for row in rows}
    assert len(found) == len(rows) and set(found) == readable | set(reasons)
    failed = {name for name, row in found.items() if row["status"] != "ok"}
    for name, reason in reasons.items():
        row = found[name]
        assert (row["status"], row["deletion_auc"], row["insertion_auc"]) == ("failed", "", ""), name
        assert row["error"].startswith(reason), (name, row["error"])
        assert f"failed    {name}: {reason}" in ended.stderr
    assert f"{len(failed)} of {len(rows)} images failed" in ended.stderr
    for name in failed - set(reasons):  # read, and then nothing to see in it
        assert name in ("1x1.png", "animated.gif"), (name, found[name]["error"])
        assert "network" in found[name]["error"] or "map" in found[name]["error"]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[int], str]:
    """The reason for a picture of 10 x 10 under a limit; empty where it is read."""

    def run(max_pixels: int) -> str:
        from igos_bench.overrides import compose_config
        from igos_bench.prepare import prepare

        words = ("data=folder", f"data.root={tmp_path}", "model=timm", "model.architecture=test_resnet")
        more = ("model.weights=null", f"data.max_pixels={max_pixels}", f"results_dir={tmp_path / 'out'}")
        run = prepare(compose_config([*words, *more]))
        ((_, image),) = run.decode(run.images, ahead=0)
        return str(image) if isinstance(image, Exception) else ""

    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    return run


def test_the_limit_of_pixels_is_the_configurations(read: Callable[[int], str]) -> None:
    assert read(100) == ""
    assert read(99) == "too large: 10 x 10 pixels, data.max_pixels=99"
