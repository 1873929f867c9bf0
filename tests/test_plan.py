from __future__ import annotations

import time
from pathlib import Path

import imagenets
import pytest
from conftest import Command
from PIL import Image

from igos_bench.config import DataConfig
from igos_bench.data import read_manifest
from igos_bench.errors import UnavailableError, UserError
from igos_bench.overrides import compose_config
from igos_bench.plan import plan, printed
from igos_bench.prepare import prepare
from igos_bench.runner import execute

WORDS = ["model=timm", "model.architecture=mobilenetv3_small_050", "model.weights=null", "protocol.n_steps=4"]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    for i in range(6):
        (tmp_path / "images").mkdir(exist_ok=True)
        image = Image.new("RGB", (32, 32), (40 * i, 100, 200))
        image.paste("white", (4, 8, 20, 24))  # an image of one colour is its own blur
        image.save(tmp_path / "images" / f"{i}.png")
    root = [f"data.root={tmp_path / 'images'}", f"results_dir={tmp_path / 'out'}"]
    return [*WORDS, "data=folder", *root, "method=grad_cam", "chunk_size=1"]


def test_what_is_done_and_left(words: list[str], tmp_path: Path) -> None:
    rows = execute(prepare(compose_config([*words, "resolution=28", "data.limit=2"])), lambda _count, _rows: None).rows
    seconds = sum(float(row["explain_seconds"]) + float(row["score_seconds"]) for row in rows) / 2

    found = plan(compose_config([*words, "resolution=28"]))
    assert (found.method, found.resolution, found.requested, found.done) == ("grad_cam", 28, 6, 2)
    assert found.seconds == pytest.approx(seconds)
    assert found.hours == pytest.approx(4 * seconds / 3600)
    assert plan(compose_config([*words, "resolution=28", "data.limit=1"])).hours == 0

    for other in ("seed=1", "preprocessing=antialias", "resolution=56", "data.name=mine"):
        again = plan(compose_config([*words, "resolution=28", other]))
        assert (again.done, again.seconds) == (0, pytest.approx(seconds)), f"{other} is another run, as fast"
    longer = plan(compose_config([*words, "resolution=28", "protocol.n_steps=40"]))
    explaining, scoring = (sum(float(row[key]) for row in rows) / 2 for key in ("explain_seconds", "score_seconds"))
    assert longer.seconds == pytest.approx(explaining + scoring * 80 / 8), "2 curves of so many steps share their ends"

    nothing = plan(compose_config([*words, "resolution=28", "precision=bf16"]))
    assert (nothing.done, nothing.seconds, nothing.hours, nothing.source) == (0, None, None, "")
    shown = printed([found, nothing])
    assert "2 cells, 2 of 12 images done; 0.00 hours left, and 1 cells of which no time is known" in shown
    shown = printed([nothing], shards=2)
    assert "1 cells, 0 of 6 images done; ? hours left, and 1 cells of which no time is known; at most" in shown


def test_it_refuses_what_run_would_refuse(words: list[str]) -> None:
    with pytest.raises(UnavailableError, match="grad_cam has no resolution 28 on vgg19; available: 14"):
        plan(compose_config([*words[4:], "model=vgg19", "resolution=28"]))
    with pytest.raises(UserError, match="unknown method in model.layers 'gradcam' .*did you mean 'grad_cam'"):
        config = compose_config([*words, "resolution=28"])
        config.model.layers["gradcam"] = {14: "layer3"}  # as a YAML of one's own would
        plan(config)


@pytest.mark.parametrize("word", ["chunk_size=0", "chunk_size=-3", "lease_seconds=0", "seed=-1"])
def test_numbers_that_no_run_has(words: list[str], word: str) -> None:
    key, value = word.split("=")
    for ask in (plan, prepare):
        with pytest.raises(UserError, match=f"^{key} must be .*, found {value}$"):
            ask(compose_config([*words, "resolution=14", word]))


def test_table1_on_a_full_size_tar(igos_bench: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for are 5 s for a plan, on a machine with no other work."""
    imagenets.make_full_size(tmp_path)
    read_manifest(DataConfig(layout="imagenet", root=str(tmp_path)))  # makes the tar's index
    started = time.perf_counter()
    ended = igos_bench("plan", "-m", "experiment=table1", f"data.root={tmp_path}")
    seconds = time.perf_counter() - started
    assert ended.returncode == 0, ended.stderr
    assert "15 cells, 0 of 75,000 images done" in ended.stdout
    assert "15 cells without a failure, 9 not available, 0 failed" in ended.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "ILSVRC2012_img_val.tar"], "it leaves nothing behind"
    with capsys.disabled():
        print(f"\nplan of Table 1 on 50,000 members: {seconds:.2f} s")
    assert seconds < 30


def test_a_mistake_of_all_cells_is_told_once(igos_bench: Command) -> None:
    ended = igos_bench("-m", "experiment=table1")
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert "data.root" in lines[0]
    assert [line for line in lines[1:] if "not available" not in line] == lines[-1:]
    assert lines[-1].startswith(
        "igos-bench: failed with 2: excitation_bp at 224 on vgg19, excitation_bp at 112 on vgg19, "
    )
    assert lines[-1].count(" on vgg19") == 18 and ": data=imagenet needs data.root=PATH" in lines[-1]
