"""The command line, end to end, on the embedded sample."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import Command

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

    more = igos_bench(*QUICK, "data.limit=3", "chunk_size=2")
    assert "resumed 2/3" in more.stdout, more.stdout + more.stderr
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
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (64, 48), colour).save(folder / name)
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
