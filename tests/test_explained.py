"""What is read of an image in a cell: pictures are those that the network was shown, and what is missing is said."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from report_folders import leave_maps, leave_photographs

from igos_bench import cli
from igos_bench.cells import Cell, read_cells
from igos_bench.classes import class_title, has_imagenet_classes
from igos_bench.config import DataConfig
from igos_bench.data import read_manifest
from igos_bench.evaluate import Evaluator
from igos_bench.explained import Explained, explained
from igos_bench.overrides import compose_config
from igos_bench.prepare import prepare
from igos_bench.results import RunDirectory


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[Cell]:
    """Grad-CAM of the sample's network on two of its photographs, scored under two protocols."""
    folder = tmp_path_factory.mktemp("real")
    words = ["method=grad_cam", "resolution=14", "data.limit=2", "protocol.n_steps=6", f"results_dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        for command in (["run"], ["score", "protocol=rise"]):
            patch.setattr(sys, "argv", ["igos-bench", *command, *words])
            assert cli.main() == 0
    return read_cells(folder)


@pytest.mark.parametrize("protocol", ["paper", "rise"])
def test_the_network_says_of_the_pictures_what_the_curves_say(real: list[Cell], protocol: str) -> None:
    [cell] = [cell for cell in real if cell.protocol == protocol]
    run = prepare(compose_config(["method=grad_cam", "resolution=14", "data.limit=2"]))
    evaluate = Evaluator(run.classifier.network, run.classifier.fast_network)
    for image_id, row in cell.rows.iterrows():
        one = explained(cell, str(image_id))
        assert one.troubles == {} and one.curve is not None
        target = torch.tensor(int(row["target"]))
        for kind in ("deletion", "insertion"):
            pictures = torch.stack([one.perturbed(kind, step) for step in range(len(one.curve.hits))])
            said = evaluate.probability(pictures, target.expand(len(pictures))).numpy()
            stored = getattr(one.curve, kind)
            assert np.ptp(stored) > 0.1, "the curve has something to tell"
            assert said == pytest.approx(stored, abs=2e-4)
        assert one.curve.shares[0] == 0 and one.curve.shares[-1] == 1
        assert (one.probability, one.areas["deletion"]) == (row["score_image"], row["deletion_auc"])


def test_classes_have_names_where_they_are_imagenets(real: list[Cell]) -> None:
    one = explained(real[0], str(real[0].rows.index[0]))
    target = real[0].rows["target"].iloc[0]
    assert one.target == class_title(target, is_imagenets=True) and not one.target.startswith("class")
    assert [class_title(471, is_imagenets=known) for known in (True, False)] == ["cannon", "class 471"]


@pytest.mark.parametrize("folder", ["n02108422", "243", "dogs"])
def test_pretrained_networks_name_the_classes_of_any_images(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [photograph] = [source for source in read_manifest(DataConfig()).images if source.label == 243]
    (tmp_path / "images" / folder).mkdir(parents=True)
    shutil.copy(photograph.path, tmp_path / "images" / folder / "a.jpg")
    words = ["method=grad_cam", "resolution=14", "protocol.n_steps=2", f"results_dir={tmp_path / 'results'}"]
    words += ["data=folder", f"data.root={tmp_path / 'images'}"]
    monkeypatch.setattr(sys, "argv", ["igos-bench", *words])
    assert cli.main() == 0
    one = explained(read_cells(tmp_path / "results")[0], f"{folder}/a.jpg")
    assert (one.target, one.label) == ("bull mastiff", None)


LITE0 = {"library": "timm", "architecture": "tf_efficientnet_lite0", "weights": "pretrained"}


@pytest.mark.parametrize(
    ("layout", "model", "is_known"),
    [
        ("folder", LITE0, True),
        ("folder", LITE0 | {"library": "torchvision", "architecture": "resnet50"}, True),
        ("folder", LITE0 | {"weights": None}, False),
        ("sample", LITE0 | {"weights": None}, False),  # random ones have an opinion, but no classes
        ("folder", LITE0 | {"weights": "/mine/ten_birds.pth"}, False),
        ("imagenet", LITE0 | {"weights": "/mine/vgg19.pth"}, True),
        ("imagenet", LITE0 | {"architecture": "convnext_base.fb_in22k"}, False),
        ("imagenet", LITE0 | {"architecture": "convnext_base.of_another_version"}, False),
        ("imagenet", LITE0 | {"architecture": "mine"}, False),
        ("imagenet", LITE0 | {"library": "mine"}, False),
        ("imagenet", {}, False),
    ],
)
def test_a_wrong_name_is_worse_than_a_number(layout: str, model: dict[str, object], is_known: bool) -> None:
    assert has_imagenet_classes({"config": {"data": {"layout": layout}, "model": model}}) is is_known
    assert not has_imagenet_classes({})


@pytest.fixture
def left(tmp_path: Path) -> tuple[Cell, RunDirectory]:
    leave_photographs(tmp_path / "images", ["3/a.png", "7/b.png"])
    directory = leave_maps(tmp_path / "results", tmp_path / "images", "igos", 28)
    return read_cells(tmp_path / "results")[0], directory


def test_the_nearest_step(left: tuple[Cell, RunDirectory]) -> None:
    one = explained(left[0], "3/a.png")
    assert one.curve is not None
    for fraction in (0.0, 0.064, 0.0638, 0.5, 0.999, 1.0):
        distances = abs(one.curve.shares - fraction)
        assert distances[one.nearest_step(fraction)] == distances.min()
    curve = replace(one.curve, hits=np.arange(5))
    assert replace(one, curve=curve).nearest_step(0.375) == 1, "of two as near, the earlier"


def test_the_hottest_are_hit_first(left: tuple[Cell, RunDirectory]) -> None:
    one = explained(left[0], "3/a.png")
    [saliency_map] = [found["3/a.png"]["map"][0] for found in left[1].results()]
    assert one.steps is not None and one.heat is not None
    assert one.steps[np.unravel_index(saliency_map.argmax(), saliency_map.shape)] == 1
    assert one.heat[one.steps == 1].max() == 1 and one.heat.min() == 0
    assert one.heat[one.steps <= 5].min() >= one.heat[one.steps > 5].max()
    assert one.heat == pytest.approx(saliency_map / saliency_map.max()), "the map's own values, whose least is 0"


@pytest.mark.parametrize("says_steps", [True, False])
def test_a_map_is_shown_without_its_curves(left: tuple[Cell, RunDirectory], says_steps: bool) -> None:
    cell, directory = left
    before = explained(cell, "3/a.png")
    (directory.protocol_path / "curves" / "000000.npz").unlink()
    if not says_steps:
        (directory.protocol_path / "protocol.json").unlink()
    one, found = troubles(cell)
    assert found.keys() == ({"curve"} if says_steps else {"curve", "baselines"}) and one.curve is None
    assert one.heat is not None and np.array_equal(one.heat, before.heat)  # type: ignore[arg-type]
    assert one.steps is not None and before.steps is not None
    if says_steps:
        assert np.array_equal(one.steps, before.steps)
    else:
        assert np.array_equal(np.sort(one.steps, axis=None), np.arange(1, 785)), "an element a step"


def test_a_label_is_told_where_it_is_another_class(left: tuple[Cell, RunDirectory]) -> None:
    labels = {image_id: explained(left[0], image_id).label for image_id in ("3/a.png", "7/b.png")}
    targets = {explained(left[0], image_id).target for image_id in labels}
    assert targets == {"class 3"}
    rows = left[0].rows["label"]
    assert labels == {i: None if np.isnan(rows[i]) or rows[i] == 3 else f"class {rows[i]:.0f}" for i in labels}


def troubles(cell: Cell) -> tuple[Explained, dict[str, str]]:
    one = explained(cell, "3/a.png")
    return one, dict(one.troubles)


def test_what_is_missing_is_said(left: tuple[Cell, RunDirectory], tmp_path: Path) -> None:
    cell, directory = left
    protocol = directory.protocol_path / "protocol.json"
    protocol.write_text("{}")
    one, found = troubles(cell)
    assert found.keys() == {"baselines"} and one.baselines is None and one.photograph is not None

    (tmp_path / "images").rename(tmp_path / "moved")
    one, found = troubles(cell)
    assert found.keys() == {"photograph"} and "images does not exist" in found["photograph"]
    assert one.photograph is None and one.heat is not None

    (directory.path / "maps" / "000000.npz").write_bytes(b"no archive")
    one, found = troubles(cell)
    assert "its map is missing or damaged" in found["heat"] and one.heat is None and one.curve is not None

    (directory.protocol_path / "curves" / "000000.npz").unlink()
    one, found = troubles(cell)
    assert "its curves are missing or damaged" in found["curve"] and one.curve is None


def test_curves_of_another_map(left: tuple[Cell, RunDirectory]) -> None:
    cell, directory = left
    maps = directory.read_maps(0)
    assert maps is not None
    path = directory.path / "maps" / "000000.npz"
    np.savez(path, image_id=maps["image_id"], saliency_map=maps["saliency_map"][:, :, ::2, ::2])
    assert troubles(cell)[1] == {"heat": "its map does not belong to its curves"}
