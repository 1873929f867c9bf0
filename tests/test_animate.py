"""`igos-bench animate`: the frames are the metric's own pictures and points, and the files hold them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence
from report_folders import leave_maps, leave_photographs

from igos_bench.animate import animate
from igos_bench.cells import Cell, read_cells
from igos_bench.draw.film import EDGE, HEIGHT, LEFTS, PHOTOGRAPHS, WIDTH, film
from igos_bench.draw.pictures import pixels
from igos_bench.draw.style import INSERTION, style
from igos_bench.errors import UserError
from igos_bench.explained import explained

IMAGE = "3/a.png"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film")
    leave_photographs(folder / "images", [IMAGE, "7/b.png"], size=224)
    leave_maps(folder / "results", folder / "images", "igos", 28)
    leave_maps(folder / "results", folder / "images", "mask", 28, parameters={"note": "one"})
    leave_maps(folder / "results", folder / "images", "mask", 28, parameters={"note": "two"}, failed=[0])
    leave_maps(folder / "results", folder / "images", "grad_cam", 7)
    return folder / "results"


def igos_of(results: Path) -> Cell:
    return next(cell for cell in read_cells(results, allow_partial=True) if cell.method == "igos")


def test_frames_are_the_metrics_pictures_to_the_pixel(results: Path) -> None:
    one = explained(igos_of(results), IMAGE)
    assert one.curve is not None
    steps = [0, 40, 200]
    with style():
        frames = list(film(one, steps))
    blue = np.array([int(INSERTION[i : i + 2], 16) for i in (1, 3, 5)])
    places = []
    for frame, step in zip(frames, steps, strict=True):
        assert frame.shape == (HEIGHT, WIDTH, 3) and HEIGHT % 2 == WIDTH % 2 == 0
        for kind, left in LEFTS.items():
            assert np.array_equal(frame[PHOTOGRAPHS, left : left + 224], pixels(one.perturbed(kind, step)))
        point = (abs(frame[PHOTOGRAPHS.stop + 20 :].astype(int) - blue).max(axis=2) == 0).sum(axis=0)
        places.append(int(np.convolve(point, np.ones(5), "same").argmax()))  # where there is most of it
    across = np.diff(places) / (places[2] - places[0])
    assert across == pytest.approx(np.diff(one.curve.shares[steps]), abs=0.02), "the point moves by the share"


def test_a_gif_of_fifty_steps(results: Path) -> None:
    path = animate([f"image={IMAGE}", f"results_dir={results}"])
    assert path.parent == results / "figures" and path.suffix == ".gif"
    assert path.stat().st_size < 1_000_000, "pixels that rest cost nothing"
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        frames, durations = [], []
        for frame in ImageSequence.Iterator(image):
            durations.append(frame.info["duration"])
            frames.append(np.asarray(frame.convert("RGB")).astype(int))
    assert len(frames) == 50 and durations[0] == 800 and durations[-1] == 2000 and set(durations[1:-1]) == {100}
    one = explained(igos_of(results), IMAGE)
    for place, step in ((0, 0), (49, 200)):
        for kind, left in LEFTS.items():
            difference = frames[place][PHOTOGRAPHS, left : left + 224] - pixels(one.perturbed(kind, step))
            assert abs(difference).mean() < 8, "but for the few colours of a GIF"
            assert abs(difference.mean()) < 2, "the noise changes no brightness"
    assert (frames[20][2, 2] == 255).all()
    margin = np.zeros((HEIGHT, WIDTH), bool)
    margin[PHOTOGRAPHS] = True
    for left in LEFTS.values():
        margin[PHOTOGRAPHS, left : left + 224] = False
    assert margin.sum() == 224 * 3 * EDGE
    for frame in frames:
        assert (frame[margin] == 255).all(), "no noise beside the photographs"
    once = path.read_bytes()
    assert animate([f"image={IMAGE}", f"results_dir={results}"]).read_bytes() == once


@pytest.mark.browser
def test_an_mp4(results: Path, tmp_path: Path) -> None:
    path = animate([f"image={IMAGE}", "format=mp4", "frames=5", f"results_dir={results}"])
    command = ["ffmpeg", "-loglevel", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    found = subprocess.run(command, capture_output=True, check=True).stdout
    frames = np.frombuffer(found, np.uint8).reshape(-1, HEIGHT, WIDTH, 3).astype(int)
    assert len(frames) == 8 + 3 + 20
    one = explained(igos_of(results), IMAGE)
    for frame, step in ((frames[0], 0), (frames[-1], 200)):
        for kind, left in LEFTS.items():
            assert abs(frame[PHOTOGRAPHS, left : left + 224] - pixels(one.perturbed(kind, step))).mean() < 6


def test_without_ffmpeg(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="format=mp4 is written by ffmpeg, which is not installed: .* format=gif"):
        animate([f"image={IMAGE}", "format=mp4", f"results_dir={results}"])


def test_an_ffmpeg_that_cannot(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho 'Unknown encoder libx264' >&2\nexit 1\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(UserError, match="ffmpeg cannot write the film .Unknown encoder libx264.: say format=gif"):
        animate([f"image={IMAGE}", "format=mp4", "frames=2", f"results_dir={results}"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["image=3/a.png", "format=avi"], "unknown format 'avi'"),
        (["image=3/a.png", "frames=1"], "frames=1: give from 2 to 200"),
        (["image=3/a.png", "kind=curves"], "unknown key 'kind'"),
        ([], "say of which image: image=ID"),
        (["image=3/b.png"], "no cell has an image '3/b.png'; there are"),
        (["image=3/a.png", "method=rise"], "unknown method 'rise'"),
        (["image=3/a.png", "resolution=14"], "igos has no run at 14; there are .* at 28"),
        (["image=3/a.png", "method=mask"], "mask at 28 has several runs, say which: note=one, run=.*; note=two, run="),
    ],
)
def test_mistakes_are_named(results: Path, words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        animate([*words, f"results_dir={results}"])


def test_the_only_resolution_of_a_method(results: Path) -> None:
    path = animate([f"image={IMAGE}", "method=grad_cam", "frames=2", f"results_dir={results}"])
    assert path.stem.endswith("-grad_cam-7")
    with pytest.raises(UserError, match=r"grad_cam has no run at 28; there are \w+ at 7"):
        animate([f"image={IMAGE}", "method=grad_cam", "resolution=28", f"results_dir={results}"])


def test_one_of_several_runs_by_its_key(results: Path) -> None:
    keys = {cell.variant: cell.run_key for cell in read_cells(results, allow_partial=True) if cell.method == "mask"}
    words = [f"image={IMAGE}", "method=mask", "frames=2", f"results_dir={results}"]
    paths = [animate([*words, *more, f"run={keys['note=one'][:8]}"]) for more in ([], ["protocol=paper"])]
    assert len(set(paths)) == 2 and all(path.exists() for path in paths)
    with pytest.raises(UserError, match="mask note=two at 28 has nothing of 3/a.png: broke"):
        animate([*words, f"run={keys['note=two']}"])
