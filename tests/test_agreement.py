"""Two sides' runs beside each other: real runs of a small network, in two precisions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from igos_bench import cli

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import agreement

MODEL = "mobilenetv3_small_050"


def run(monkeypatch: pytest.MonkeyPatch, results_dir: Path, *words: str) -> None:
    usual = ["method=integrated_gradients", "resolution=224", "model=timm", f"model.architecture={MODEL}"]
    usual += ["model.weights=null", "protocol.n_steps=4", f"results_dir={results_dir}"]
    monkeypatch.setattr(sys, "argv", ["igos-bench", *usual, *words])
    assert cli.main() == 0


def compared(monkeypatch: pytest.MonkeyPatch, results_dir: Path, *words: str) -> int:
    places = [f"{side}.results_dir={results_dir}" for side in ("reference", "other")]
    monkeypatch.setattr(
        sys, "argv", ["agreement.py", f"model={MODEL}", f"out={results_dir / 'a.csv'}", *places, *words]
    )
    return agreement.main()


def test_means_and_images_that_both_sides_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, tmp_path, "data.limit=3")
    assert compared(monkeypatch, tmp_path, "other.precision=bf16") == 2
    assert "has no run in bf16" in capsys.readouterr().err
    run(monkeypatch, tmp_path, "data.limit=2", "precision=bf16")
    run(monkeypatch, tmp_path, "data.limit=2", "precision=bf16", "method.steps=3")  # not the method as `conf/` has it

    areas = {}
    for path in tmp_path.glob("runs/*/*/*/*/*/paper-*/records.csv"):
        rows = pd.read_csv(path, index_col="image_id")["deletion_auc"]
        if json.loads((path.parent.parent / "run.json").read_text())["config"]["method"]["steps"] == 20:
            areas[len(rows)] = rows
    assert set(areas) == {2, 3}

    assert compared(monkeypatch, tmp_path, "other.precision=bf16") == 0
    (row,) = pd.read_csv(tmp_path / "a.csv").to_dict("records")
    moved = (areas[2] - areas[3]).dropna()
    assert row["n"] == 2 and row["method"] == "integrated_gradients"
    assert row["deletion_moved"] == pytest.approx(moved.mean(), abs=1e-9) and row["deletion_moved"] != 0
    assert row["deletion_moved_se"] == pytest.approx(moved.std(ddof=1) / len(moved) ** 0.5, abs=1e-9)
    assert row["deletion_of_an_image"] == pytest.approx(moved.abs().max(), abs=1e-9)
    assert row["reference_key"] != row["other_key"]
