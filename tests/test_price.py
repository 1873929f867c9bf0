"""What a cell is said to cost, against what runs count, take and leave on the disk."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from noise import write_noise
from result_folders import leave_run

from igos_bench.batch import generator
from igos_bench.cells import find_cells
from igos_bench.config import ProtocolConfig
from igos_bench.errors import UserError
from igos_bench.evaluate import Evaluator
from igos_bench.foreign import MapFolder
from igos_bench.metrics import Protocol
from igos_bench.overrides import compose_config
from igos_bench.plan import plan, printed, words_of_plan
from igos_bench.prepare import prepare
from igos_bench.price import (
    CHUNK,
    GRADIENT,
    ROW,
    Passes,
    calibrated_speed,
    explaining,
    given_speed,
    points,
    scaled_seconds,
    stored_bytes,
)
from igos_bench.runner import execute

IMAGES = 2
METHODS = {
    "grad_cam": ("resolution=28",),
    "excitation_bp": ("resolution=28",),
    "integrated_gradients": ("resolution=224", "method.steps=10"),
    "rise": ("resolution=224", "method.masks=10"),
    "mask": ("resolution=28", "method.iterations=10"),
    "igos": ("resolution=28", "method.iterations=3", "method.path_steps=4"),
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("priced")
    write_noise(folder / "images", [f"{i}.png" for i in range(IMAGES)])
    return [
        "model=timm", "model.architecture=mobilenetv3_small_050", "model.weights=null", "data=folder", "device=cpu",
        f"data.root={folder / 'images'}", "protocol.n_steps=4", f"results_dir={folder / 'out'}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(words: list[str]) -> dict[str, pd.DataFrame]:
    """The rows of each method."""
    for method in ("grad_cam", "rise", "integrated_gradients"):
        execute(prepare(compose_config([*words, f"method={method}", *METHODS[method]])), lambda _count, _rows: None)
    return {cell.method: cell.rows for cell in find_cells(results_dir(words))}


def results_dir(words: list[str]) -> Path:
    return Path(words[-1].removeprefix("results_dir="))


@pytest.mark.parametrize("method", METHODS)
def test_passes_are_those_that_are_counted(words: list[str], method: str) -> None:
    more = [*METHODS[method], "model.architecture=resnet10t"] if method == "excitation_bp" else METHODS[method]
    run = prepare(compose_config([*words, f"method={method}", *more]))
    assert not isinstance(run.method, MapFolder)
    classifier, images = run.classifier, torch.rand(IMAGES, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    evaluate = Evaluator(classifier.network, classifier.fast_network, 8, layers=classifier.layers_for(method))
    run.method(
        evaluate, images, torch.tensor([1, 2]), baselines=run.method.baseline(images),
        resolution=run.config.resolution, generators=[generator(i) for i in range(IMAGES)], run_generator=generator(9),
    )  # fmt: skip
    found = explaining(run.method)
    assert found and found.gradients == evaluate.backwards / IMAGES
    alone = (evaluate.forwards - evaluate.backwards) / IMAGES
    if method == "igos":  # whose line search takes from 1 to 13 tries
        assert 1 + 3 <= alone <= 1 + 3 * 13 and found.alone == 1 + 3 * 6
    else:
        assert alone == found.alone


def test_another_cell_is_priced_by_those_that_are_done(words: list[str], runs: dict[str, pd.DataFrame]) -> None:
    speed = calibrated_speed(find_cells(results_dir(words)))
    assert speed
    forward = np.median([rows["score_seconds"].mean() / 8 for rows in runs.values()])
    assert speed.forward == pytest.approx(forward), "4 steps are 3 inner points of two curves, and two ends"
    path = runs["integrated_gradients"]
    assert speed.gradient == pytest.approx(
        path["explain_seconds"].mean() / 10 * forward / (path["score_seconds"].mean() / 8)
    )

    other = [cell for cell in find_cells(results_dir(words)) if cell.method != "rise"]
    without = calibrated_speed(other)
    assert without and without.source == "2 other cells of the model"
    new = [*words, "method=rise", "resolution=224", "method.masks=50"]
    found = plan(compose_config(new), rate="100,20")
    assert (found.passes and found.passes.alone, found.source) == (58, "the rate given")
    assert found.seconds == pytest.approx(0.58), "and not what rows tell"


@pytest.mark.parametrize(
    ("method", "asked", "explaining", "scoring"),
    [
        ("rise", "method.masks=50", 5, 1),
        ("rise", "method.masks=8000 protocol.n_steps=200", 800, 400 / 8),
        ("integrated_gradients", "method.steps=5 protocol.n_steps=8", 1 / 2, 2),
        ("integrated_gradients", "method.steps=10 seed=1", 1, 1),
    ],
)
def test_a_trial_prices_a_longer_run_of_its_method(
    words: list[str], runs: dict[str, pd.DataFrame], method: str, asked: str, explaining: float, scoring: float
) -> None:
    """The trial: 10 masks or steps, and 4 steps of two curves, which are 8 passes."""
    found = plan(compose_config([*words, f"method={method}", "resolution=224", *asked.split()]))
    seconds = explaining * runs[method]["explain_seconds"] + scoring * runs[method]["score_seconds"]
    assert (found.source, found.seconds) == ("its method's other rows", pytest.approx(seconds.mean()))


def test_a_search_is_priced_by_the_passes_that_were_counted(tmp_path: Path) -> None:
    leave_run(tmp_path, "igos", 28, [(0.1, 0.2)], parameters={"iterations": 2})  # 2 s and 0.5 s
    cells = [replace(cell, rows=cell.rows.assign(forwards=30, backwards=10)) for cell in find_cells(tmp_path)]
    tell = partial(scaled_seconds, cells, passes=Passes(alone=100, gradients=100), points=5)
    assert tell({"method.iterations": "2", "seed": "7"}) == 2.5, "the same search is as long, whatever is expected"
    assert tell({"method.iterations": "4"}) == pytest.approx(2 * (100 + 100 * GRADIENT) / (20 + 10 * GRADIENT) + 0.5)
    assert tell({"method.iterations": "4"}, passes=None) is None, "of a method of one's own nothing is known"
    assert tell({"method.iterations": "2"}, passes=None) == 2.5


def test_a_rate_is_given() -> None:
    one, both = given_speed("300"), given_speed("300,50")
    assert (one.forward, one.gradient) == pytest.approx((1 / 300, GRADIENT / 300))
    assert (both.forward, both.gradient) == pytest.approx((1 / 300, 1 / 50))
    for wrong in ("0", "-1", "fast", "1,0", "1,2,3", "nan", "inf", ""):
        with pytest.raises(UserError, match="write inputs a second"):
            given_speed(wrong)
    assert words_of_plan(["a=1", "rate=3,4", "shards=8"]) == ("3,4", 8, ["a=1"])
    with pytest.raises(UserError, match="shards=x"):
        words_of_plan(["shards=x"])


@pytest.mark.parametrize("resolution", [2, 28, 224])
@pytest.mark.parametrize(("ranking", "spacing"), [("elements", "even"), ("elements", "floor"), ("pixels", "floor")])
def test_points_are_those_of_the_protocol(resolution: int, ranking: str, spacing: str) -> None:
    for n_steps in (1, 8, 200, 1000):
        config = ProtocolConfig(ranking=ranking, spacing=spacing, n_steps=n_steps)
        elements = (resolution if ranking == "elements" else 224) ** 2
        hits = Protocol.from_config(config).hits(elements)
        assert points(resolution, n_steps, ranking, spacing) == len(hits)


def test_storage_is_an_upper_bound_and_no_wild_one(words: list[str], runs: dict[str, pd.DataFrame]) -> None:
    for cell in find_cells(results_dir(words)):
        paths = [cell.directory.path / "maps", cell.directory.protocol_path / "curves"]
        paths.append(cell.directory.protocol_path / "records")
        files = [cell.directory.protocol_path / "records.csv", *(file for path in paths for file in path.iterdir())]
        real = sum(file.stat().st_size for file in files)
        bound = stored_bytes(IMAGES, cell.resolution, 5, chunk_size=10)
        assert real <= bound
        rows = files[0].read_bytes().splitlines()[1:]
        assert 2 * max(map(len, rows)) < ROW, "a row is there twice"
        if cell.resolution == 224:
            assert bound < 2 * real
    sizes = [stored_bytes(images, 14, 5, chunk_size=10) for images in (9, 10, 11)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] + 5 * 8 + CHUNK, "the eleventh begins another chunk"


def test_it_measures_this_device_once(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = compose_config(
        [*words[:-1], "results_dir=nowhere", "method=rise", "resolution=224", "evaluate.batch_size=2"]
    )
    first, again = plan(asked, rate="measured"), plan(asked, rate="measured")
    assert first.source == "the rate measured here" and first.seconds and first.seconds == again.seconds
    assert len(list(tmp_path.rglob("rate-*.json"))) == 1
    assert plan(asked).seconds is None
    assert "rate=measured measures this device" in printed([plan(asked)])
