"""scripts/bench_scale.py on a few images: the parts add up, and the stopwatches are gone afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from igos_bench.clock import peak_memory_mb
from igos_bench.errors import UserError
from igos_bench.network import Normalised
from igos_bench.prepare import Run

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import bench_scale

COUNT = 7


def test_a_run_is_taken_apart(tmp_path: Path) -> None:
    bench_scale.write_images(tmp_path / "images", COUNT)
    before = (torch.autograd.grad, Run.read, Normalised.forward)
    row = bench_scale.measure(tmp_path / "images", tmp_path / "results", COUNT)
    assert (torch.autograd.grad, Run.read, Normalised.forward) == before
    assert row["images"] == COUNT and row["peak_mb"] > 100
    parts = [row[f"{part}_ms"] for part in ("network", "waiting", "harness")]
    assert sum(parts) == pytest.approx(row["seconds_ms"])
    assert sum(parts[1:]) == pytest.approx(row["outside_ms"])
    assert min(parts) >= 0 and row["network_ms"] > 1 and row["reading_ms"] > 0.1


def test_images_have_been_read(tmp_path: Path) -> None:
    bench_scale.write_images(tmp_path / "images", COUNT)
    before = Run.read
    row = bench_scale.measure(tmp_path / "images", tmp_path / "results", COUNT, read=True)
    assert Run.read == before
    assert row["images"] == COUNT and row["reading_ms"] < 0.1 and row["network_ms"] > 1


def test_every_size_has_a_process_of_its_own(tmp_path: Path) -> None:
    bench_scale.write_images(tmp_path / "images", COUNT)
    ballast = torch.ones(700 * 2**20 // 4)  # 700 MB that this process's peak has
    row = bench_scale.measure_alone(tmp_path / "images", tmp_path / "results", COUNT)
    assert len(ballast) and row["images"] == COUNT
    parts = [row[f"{part}_read_ms"] for part in ("network", "outside")]
    assert min(parts) > 0 and sum(parts) == pytest.approx(row["seconds_read_ms"]), "of the same run"
    assert 100 < row["peak_mb"] < peak_memory_mb(torch.device("cpu")) - 300
    assert len(list((tmp_path / "results" / "warm-up").rglob("run.json"))) == 1, "warmed up in the same process"
    (tmp_path / "images" / "00001.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="1 of 7 images failed"):
        bench_scale.measure_alone(tmp_path / "images", tmp_path / "again", COUNT)


def test_images_are_the_same_every_time(tmp_path: Path) -> None:
    for name in ("first", "second"):
        bench_scale.write_images(tmp_path / name, 2)
    for image in ("00000.jpg", "00001.jpg"):
        assert (tmp_path / "first" / image).read_bytes() == (tmp_path / "second" / image).read_bytes()
    assert (tmp_path / "first" / "00000.jpg").read_bytes() != (tmp_path / "first" / "00001.jpg").read_bytes()


def test_failed_images_end_the_bench(tmp_path: Path) -> None:
    bench_scale.write_images(tmp_path / "images", 2)
    (tmp_path / "images" / "00001.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="1 of 2 images failed: see .*records.csv"):
        bench_scale.measure(tmp_path / "images", tmp_path / "results", 2)
