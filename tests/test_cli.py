"""The command line, end to end, on the embedded sample."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import imagenets
import pytest
from conftest import Command
from result_folders import leave_run

from igos_bench import cli, data
from igos_bench.config import DataConfig
from igos_bench.methods import method_names

QUICK = ("method.iterations=2", "method.path_steps=4", "protocol.n_steps=4", "results_dir=out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=igoss"], "unknown method 'igoss' (did you mean 'igos'?)"),
        (["methodd=igos"], "unknown key 'methodd' (did you mean 'method'?)"),
        (["model=vgg91"], "unknown model 'vgg91' (did you mean 'vgg19'?)"),
        (["method.iteration=3"], "did you mean 'method.iterations'?"),
        (
            ["resolution=27"],
            "igos has no resolution 27 on efficientnet_lite0 (did you mean 28?); available: 224, 112, 28, 14",
        ),
        (["+foo=1"], "+foo=1: keys cannot be added or removed"),
        (["device=gpu"], "expected one of [auto, cpu, cuda, mps]"),
        (["scor"], "unknown command 'scor' (did you mean 'score'?)"),
        (["data=folder"], "data=folder needs data.root=FOLDER"),
        (["data=folder", "data.root=nowhere"], "data.root=nowhere does not exist"),
        (["table"], "no runs under results/runs"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(igos_bench: Command, words: list[str], message: str) -> None:
    ended = igos_bench(*words)
    assert ended.returncode == 2, ended.stderr
    assert message in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert "Traceback" not in ended.stderr


HEAVY = """
import sys
from igos_bench.cli import main
code = main()
print("heavy:", *sorted({"torch", "torchvision", "timm"} & set(sys.modules)))
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["plan"], 0, "1 cells, 0 of 20 images done"),
        (["plan", "-m", f"method={','.join(method_names())}", "resolution=224,14"], 0, "cells, 0 of"),
        (["plan", "-m", "experiment=table1", "data.root=."], 0, "15 cells, 0 of 180 images done"),
        (["plan", "method.iterations=0"], 2, "method.iterations must be at least 1, found 0"),
        (["table"], 0, "written to results/table.csv"),
        (["compare"], 0, "written to results/comparison.csv"),
        (["show", "nosuchkey"], 2, "no run has the key nosuchkey under results/runs; there are "),
        (["metod=igos"], 2, "unknown key 'metod' (did you mean 'method'?)"),
        (["-m", "metod=igos,mask"], 2, "unknown key 'metod' (did you mean 'method'?)"),
        (["method.iteration=3"], 2, "did you mean 'method.iterations'?"),
    ],
)
def test_what_computes_nothing_imports_no_torch(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    imagenets.make_tar(tmp_path)
    if words[0] in ("table", "compare", "show"):
        for method in ("igos", "mask"):
            leave_run(tmp_path / "results", method, 28, [(0.1, 0.5), (0.2, 0.7)])
    command = [sys.executable, "-c", HEAVY, *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "heavy:"


@pytest.mark.parametrize("command", ["plan", "run"])
def test_the_cells_of_a_sweep_share_one_manifest(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[DataConfig] = []
    read_manifest = data.read_manifest

    def counting(config: DataConfig) -> data.Manifest:
        asked.append(config)
        return read_manifest(config)

    monkeypatch.setattr(data, "read_manifest", counting)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # to put it back afterwards
    monkeypatch.chdir(tmp_path)
    imagenets.make_flat(tmp_path / "images", [1])
    model = ("model=timm", "model.architecture=test_resnet", "model.weights=null", "protocol.n_steps=2", "device=cpu")
    cells = ("method=grad_cam,integrated_gradients", "resolution=14,224")
    for expected in (1, 2):
        monkeypatch.setattr(
            sys, "argv", ["igos-bench", command, "-m", "data=folder", "data.root=images", *model, *cells]
        )
        assert cli.main() == 0
        assert len(asked) == expected, "once a sweep, and the next sweep looks again"
    capsys.readouterr()


def records(folder: Path) -> dict[str, dict[str, str]]:
    (path,) = folder.glob("runs/*/*/*/*/*/*/records.csv")
    with path.open(newline="") as file:
        return {row["image_id"]: row for row in csv.DictReader(file)}


def without_times(rows: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    return {i: {k: v for k, v in row.items() if not k.endswith("_seconds")} for i, row in rows.items()}


def test_run_resume_score_table(igos_bench: Command, tmp_path: Path) -> None:
    first = igos_bench(*QUICK, "data.limit=2", "chunk_size=2")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("run: method=igos resolution=28 model=efficientnet_lite0 data=sample (2 images)")
    two = records(tmp_path / "out")
    assert [row["status"] for row in two.values()] == ["ok", "ok"]

    more = igos_bench(*QUICK, "data.limit=3", "chunk_size=5")
    assert "resumed 2/3" in more.stdout, more.stdout + more.stderr
    (line,) = [line for line in more.stderr.splitlines() if "chunk_size" in line]
    assert line.startswith("igos-bench: the run in out/runs/")
    assert line.endswith(" began with chunk_size=2 and goes on so; for chunk_size=5 set another results_dir")
    three = records(tmp_path / "out")
    assert len(three) == 3
    assert all(three[i] == row for i, row in two.items()), "done rows are not touched"
    (run_json,) = (tmp_path / "out").glob("runs/*/*/*/*/*/run.json")
    provenance = json.loads(run_json.read_text())
    assert (provenance["requested"], provenance["done"], provenance["chunk_size"]) == (3, 3, 2)

    (protocol,) = (tmp_path / "out").glob("runs/*/*/*/*/*/paper-*")
    for path in sorted(protocol.rglob("*.*")):
        if path.is_file():
            path.unlink()
    scored = igos_bench("score", *QUICK, "data.limit=3")
    assert scored.returncode == 0, scored.stderr
    again = records(tmp_path / "out")
    for i, row in three.items():
        assert (again[i]["deletion_auc"], again[i]["insertion_auc"]) == (row["deletion_auc"], row["insertion_auc"])

    table = igos_bench("table", "results_dir=out")
    assert table.returncode == 0, table.stderr
    with (tmp_path / "out" / "table.csv").open(newline="") as file:
        (cell,) = csv.DictReader(file)
    mean = sum(float(row["deletion_auc"]) for row in three.values()) / 3
    assert float(cell["deletion_auc"]) == pytest.approx(mean)
    assert float(cell["deletion_ci_low"]) <= mean <= float(cell["deletion_ci_high"])
    assert (cell["n"], cell["requested"], cell["paper_deletion"]) == ("3", "3", "0.0899")


def test_a_bad_image_is_a_row_and_a_torn_record_loses_nothing(igos_bench: Command, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in (("a.png", "orange"), ("b.png", "blue")):
        image = Image.new("RGB", (64, 48), colour)
        image.paste("white", (8, 8, 40, 30))  # of one colour it is its own blur; of red, I-GOS has one element or none
        image.save(folder / name)
    (folder / "c.jpg").write_bytes(b"no image at all")
    words = (*QUICK, "data=folder", f"data.root={folder}")
    first = igos_bench(*words)
    assert first.returncode == 3, first.stderr
    assert "failed    c.jpg: not an image" in first.stderr
    rows = records(tmp_path / "out")
    assert {i: row["status"] for i, row in rows.items()} == {"a.png": "ok", "b.png": "ok", "c.jpg": "failed"}

    (path,) = (tmp_path / "out").glob("runs/*/*/*/*/*/*/records.csv")
    path.write_bytes(path.read_bytes()[:-40])
    second = igos_bench(*words)
    assert second.returncode == 3, second.stderr
    assert without_times(records(tmp_path / "out")) == without_times(rows)


def test_score_without_maps_says_what_to_do(igos_bench: Command) -> None:
    ended = igos_bench("score", *QUICK, "data.limit=1")
    assert ended.returncode == 2
    assert "no stored maps" in ended.stderr


def test_a_first_image_that_is_bad_is_a_row_too(igos_bench: Command, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "only.jpg").write_bytes(b"no image at all")
    ended = igos_bench(*QUICK, "data=folder", f"data.root={folder}")
    assert ended.returncode == 3, ended.stderr
    assert "failed    only.jpg: not an image" in ended.stderr
    assert "Traceback" not in ended.stderr
    (timing,) = (tmp_path / "out").glob("runs/*/*/*/*/*/timing.csv")
    with timing.open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["images"] == "1"
