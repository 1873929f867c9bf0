"""The table of repeatability: two real runs of a small network, and folders in which one thing was changed by hand."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from toys import toy_image

from igos_bench.csv_file import csv_text
from igos_bench.formats import COLUMNS, read_csv

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

import repeatability  # noqa: E402

MODEL = ("model=timm", "model.architecture=test_byobnet", "model.weights=null")
AGAIN, WORKERS = repeatability.CHANGES[0], repeatability.CHANGES[1]
THREADS = next(change for change in repeatability.CHANGES if change.changed == "threads")


def start(folder: Path, *words: str) -> int:
    own = [f"work={folder / 'work'}", f"out={folder / 'table.csv'}", "methods=[grad_cam]", "resolutions=[7]"]
    data = ["data=folder", f"data.root={folder / 'images'}", "protocol.n_steps=2"]
    return repeatability.main([*own, "threads=1", *MODEL, *data, *words])


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the reference and the same again."""
    folder = tmp_path_factory.mktemp("repeatability")
    (folder / "images").mkdir()
    for i in range(2):
        pixels = toy_image(i, size=48).mul(255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    assert start(folder, "changes=[again]") == 0
    return folder


@pytest.fixture
def folder(real: Path, tmp_path: Path) -> Path:
    shutil.copytree(real, tmp_path, dirs_exist_ok=True)
    return tmp_path


def compared(folder: Path, change: repeatability.Change = AGAIN) -> dict[str, object]:
    options = repeatability.Options(work=str(folder / "work"), methods=["grad_cam"], resolutions=[7], threads=1)
    (row,) = repeatability.compare(change, options)
    return row


def edit(folder: Path, change: Callable[[list[dict[str, str]]], object]) -> None:
    """Change the rows of the run that was made again."""
    (path,) = folder.glob("work/again/runs/*/*/*/*/*/*/records.csv")
    rows = read_csv(path) or []
    change(rows)
    path.write_text(csv_text(COLUMNS, rows))


def edit_run_json(folder: Path, **values: object) -> None:
    (path,) = folder.glob("work/again/runs/*/*/*/*/*/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_same_again_is_the_same(real: Path) -> None:
    (row,) = pd.read_csv(real / "table.csv", keep_default_na=False).to_dict("records")
    assert (row["method"], row["resolution"], row["changed"], row["value"], row["n"]) == ("grad_cam", 7, "again", "", 2)
    assert (row["same_rows"], row["same_targets"], row["deletion_largest"], row["insertion_mean"]) == (1, 1, 0, 0)
    assert row["same_bytes"]
    assert (row["threads"], row["batch_size"]) == (1, 32)
    assert {"machine", "versions", "date", "commit"} <= set(row)


def test_differences_are_what_they_are(folder: Path) -> None:
    before: list[float] = []

    def shift(rows: list[dict[str, str]]) -> None:
        before.extend(float(row["deletion_auc"]) for row in rows)
        rows[0]["deletion_auc"] = repr(before[0] + 0.01)
        rows[1]["deletion_auc"] = repr(before[1] - 0.004)
        rows[1]["explain_seconds"] = "7"

    edit(folder, shift)
    row = compared(folder)
    assert row["deletion_largest"] == pytest.approx(0.01)
    assert row["deletion_mean"] == pytest.approx(0.003)
    assert (row["insertion_largest"], row["same_rows"], row["same_targets"]) == (0, 0, 1)
    assert not repeatability.within(AGAIN, row)
    assert not repeatability.within(THREADS, row)
    assert repeatability.within(THREADS, {**row, "method": "igos"}), "of the iterative ones the mean counts"
    assert not repeatability.within(THREADS, {**row, "method": "igos", "insertion_mean": 0.006})
    assert not repeatability.within(THREADS, {**row, "deletion_largest": 0.0, "same_targets": 0.5})
    assert repeatability.within(THREADS, {**row, "deletion_largest": 9e-4})


def test_seconds_alone_may_differ(folder: Path) -> None:
    edit(folder, lambda rows: rows[0].update(explain_seconds="7"))
    assert compared(folder)["same_rows"] == 1
    assert repeatability.within(AGAIN, compared(folder))
    edit(folder, lambda rows: rows[0].update(ties="0.5"))
    assert compared(folder)["same_rows"] == 0.5


@pytest.mark.parametrize("pattern", ["maps/*.npz", "*/curves/*.npz"])
def test_a_byte_of_a_map_or_a_curve_is_seen(folder: Path, pattern: str) -> None:
    (path,) = folder.glob(f"work/again/runs/*/*/*/*/*/{pattern}")
    path.write_bytes(path.read_bytes() + b"x")
    row = compared(folder)
    assert (row["same_rows"], row["same_bytes"]) == (1, False)
    assert not repeatability.within(AGAIN, row)
    assert repeatability.within(THREADS, row)


def test_another_target_is_seen_and_ends_the_script_with_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder, lambda rows: rows[0].update(target="0", label="3"))
    options = repeatability.Options(
        work=str(folder / "work"), out=str(folder / "table.csv"), methods=["grad_cam"], resolutions=[7], threads=1
    )
    assert compared(folder)["same_targets"] == 0.5
    assert repeatability.judge(AGAIN, options) == 1
    assert "beyond the bounds: grad_cam 7, again" in capsys.readouterr().out
    (row,) = pd.read_csv(folder / "table.csv").to_dict("records")
    assert row["same_targets"] == 0.5, "in the place of the row that was there"


@pytest.mark.parametrize("key", ["git", "versions", "machine", "threads"])
def test_runs_that_differ_in_more_are_not_compared(folder: Path, key: str) -> None:
    edit_run_json(folder, **{key: None})
    with pytest.raises(repeatability.UserError, match=rf"again/runs/.* was made with other {key} than it is compared"):
        compared(folder)


def test_other_images_and_runs_that_are_not_there_are_named(folder: Path) -> None:
    edit(folder, lambda rows: rows.pop())
    with pytest.raises(
        repeatability.UserError, match="has 1 images and the reference 2, or others: give the same limit"
    ):
        compared(folder)
    with pytest.raises(repeatability.UserError, match=r"workers-4/.* is not there"):
        compared(folder, WORKERS)


@pytest.mark.long
def test_one_of_several_values_is_asked_for_by_its_folder(real: Path, tmp_path: Path) -> None:
    shutil.copytree(real, tmp_path, dirs_exist_ok=True)
    assert start(tmp_path, "changes=[batch_size-1,shards]") == 0
    there = ["again", "batch_size-1", "reference", "shards"]
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == there
    values = pd.read_csv(tmp_path / "table.csv", dtype=str, keep_default_na=False)[["changed", "value"]]
    assert values.to_numpy().tolist() == [["again", ""], ["batch_size", "1"], ["shards", ""]]


def test_mistakes_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert repeatability.main(["changes=[thread]"]) == 2
    assert "unknown change 'thread' (did you mean 'threads'?)" in capfd.readouterr().err
    assert repeatability.main(["limit=many"]) == 2
    assert start(tmp_path, "data.limti=1") == 2
    assert "repeatability: igos-bench ended with 2: its message stands above" in capfd.readouterr().err
