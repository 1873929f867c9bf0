"""The size of a micro-batch: as asked, as usual, or measured once and kept."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from toys import SmallConv

from igos_bench.batch_size import LONGEST, SIZES, check_batch_size, choose_batch_size, fastest_size
from igos_bench.config import Precision
from igos_bench.errors import UserError

CPU = torch.device("cpu")


class Counting(SmallConv):
    calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        Counting.calls += 1
        return super().forward(images)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Counting.calls = 0
    return tmp_path / "igos-bench"


def choose(asked: int | str | None, name: str = "toy") -> int:
    return choose_batch_size(asked, name, Counting(0).requires_grad_(False), CPU, Precision.fp32)


def test_what_is_asked_for_and_what_is_usual_need_no_measurement() -> None:
    assert (choose(7), choose(None)) == (7, 32)
    assert Counting.calls == 0


def test_auto_is_measured_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "cpu", (1, 2, 4))
    size = choose("auto")
    assert size in SIZES["cpu"] and Counting.calls > len(SIZES["cpu"])
    Counting.calls = 0
    assert choose("auto") == size and Counting.calls == 0
    (file,) = cache.iterdir()
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "batch_size": 3}))
    assert choose("auto") == 3, "what is kept decides, so that runs of one machine have one size"
    file.write_text(json.dumps({**content, "torch": "0.1", "batch_size": 3}))
    assert choose("auto") in SIZES["cpu"] and Counting.calls > 0, "measured for another torch"
    file.write_text("{")
    assert choose("auto") in SIZES["cpu"]


def test_the_fastest_size_counts() -> None:
    """A network that takes 30 ms an input, of four at once 10."""

    def network(images: torch.Tensor) -> torch.Tensor:
        time.sleep(len(images) * (0.01 if len(images) == 4 else 0.03))
        return images.mean((2, 3))

    assert fastest_size(network, CPU, Precision.fp32, sizes=(1, 2, 4, 8)) == 4


def test_a_slow_network_gets_large_micro_batches_too() -> None:
    """VGG19 in fp32 takes 0.25 s an input on two cores and is fastest at 16: the search may not stop before."""
    assert LONGEST > 16 * 0.25


@pytest.mark.parametrize(
    ("asked", "message"),
    [(0, "must be at least 1, found 0"), ("fast", "=fast: give a number from 1 on, auto, or null")],
)
def test_mistakes_are_named(asked: int | str, message: str) -> None:
    with pytest.raises(UserError, match=f"evaluate.batch_size ?{message}"):
        check_batch_size(asked)
