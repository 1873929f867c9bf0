from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import Command
from result_folders import leave_run

from igos_bench.cells import read_cells
from igos_bench.layout import latex, markdown
from igos_bench.methods import Mask
from igos_bench.table import COLUMNS, make_table, paper_table, printed

AREAS = [(0.1, 0.5), (0.2, 0.6), (0.6, 0.7)]


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    leave_run(tmp_path, "mask", 28, AREAS, model="vgg19", data="imagenet")
    leave_run(tmp_path, "igos", 28, AREAS, model="vgg19", data="imagenet", seed=0)
    leave_run(tmp_path, "igos", 28, AREAS[:2], requested=3, model="vgg19", data="imagenet", seed=1)
    leave_run(tmp_path, "igos", 112, AREAS, model="vgg19", data="imagenet", seed=0)
    leave_run(tmp_path, "theirs_&_ours", 7, AREAS, model="vgg19", data="imagenet")
    leave_run(tmp_path, "igos", 28, AREAS)
    return make_table(read_cells(tmp_path, allow_partial=True))


def test_the_papers_table_is_the_papers() -> None:
    paper = paper_table()
    assert len(paper) == 15
    assert paper["igos", 28] == (0.0899, 0.5701)
    assert paper["mask", 224] == (0.0482, 0.4158)
    assert paper["rise", 224] == (0.1082, 0.5139)
    assert paper["integrated_gradients", 224] == (0.0663, 0.2551)
    assert paper["grad_cam", 14] == (0.1527, 0.5938)
    assert paper["excitation_bp", 14] == (0.2328, 0.5452)


def test_a_row(table: pd.DataFrame) -> None:
    assert tuple(table.columns) == COLUMNS
    row = table[(table["method"] == "mask")].iloc[0]
    assert row["deletion_auc"] == pytest.approx(0.3)
    assert row["insertion_auc"] == pytest.approx(0.6)
    assert row["deletion_ci_low"] < 0.3 < row["deletion_ci_high"] <= 0.6
    assert (row["n"], row["requested"], row["variant"]) == (3, 3, "")
    assert (row["paper_deletion"], row["paper_insertion"]) == (0.1056, 0.5335)
    assert (row["explain_seconds"], row["score_seconds"]) == (3.0, 0.5)
    theirs = table[table["resolution"] == 7].iloc[0]
    assert pd.isna(theirs["paper_deletion"])


def test_markdown_has_the_papers_layout(table: pd.DataFrame) -> None:
    page = markdown(table)
    ours, papers = page.split("## vgg19, imagenet, protocol paper")
    assert "these differences are no test of the paper" in ours
    assert "these differences are no test of the paper" not in papers
    lines = papers.splitlines()
    heads = [line for line in lines if line.startswith("| method")]
    assert heads[0].startswith("| method | 112 deletion ↓ | 112 insertion ↑ | 28 deletion ↓ |")
    rows = {line.split(" | ")[0].removeprefix("| "): line.strip("| ").split(" | ") for line in lines if "<br>" in line}
    assert list(rows) == ["Mask", "I-GOS seed=0", "I-GOS seed=1", "theirs_&_ours"]
    assert rows["Mask"][1:3] == ["-", "-"], "not run at 112"
    assert rows["Mask"][3].startswith("0.3000<br>[") and rows["Mask"][3].endswith("<br>paper 0.1056, +0.1944")
    assert rows["I-GOS seed=0"][4].endswith("<br>paper 0.5701, +0.0299")
    assert rows["I-GOS seed=1"][3].startswith("0.1500 !<br>"), "an incomplete cell is marked"
    assert rows["I-GOS seed=1"][3].endswith("paper 0.0899, +0.0601")
    assert rows["theirs_&_ours"][5].count("<br>") == 1, "the paper has no such cell"
    assert "| I-GOS seed=1 | - | 2.50 + 0.50 (2 of 3) | - |" in lines


def test_the_terminal_marks_incomplete_cells(table: pd.DataFrame) -> None:
    (line,) = [line for line in printed(table).splitlines() if "seed=1" in line]
    assert "2/3 !" in line and "0.1500 [" in line


CLEAN, DIRTY = ({"commit": "c" * 40, "dirty": dirty} for dirty in (False, True))


def test_runs_of_uncommitted_or_other_code_are_marked(tmp_path: Path) -> None:
    installed = Mask.version
    leave_run(tmp_path, "mask", 224, AREAS, code={"git": CLEAN, "method_version": installed})
    leave_run(tmp_path, "mask", 112, AREAS, code={"git": DIRTY, "method_version": installed})
    leave_run(tmp_path, "mask", 28, AREAS, code={"git": CLEAN, "continued": [{"git": None}, {"git": DIRTY}]})
    leave_run(tmp_path, "mask", 14, AREAS, requested=4, code={"git": DIRTY, "method_version": installed + 1})
    leave_run(tmp_path, "theirs", 7, AREAS, code={"git": None, "method_version": 3})  # not installed: nothing is known
    table = make_table(read_cells(tmp_path, allow_partial=True))
    marks = dict(zip(table["resolution"], table["marks"], strict=True))
    assert marks == {224: "", 112: "dirty", 28: "dirty", 14: "incomplete dirty changed", 7: ""}

    notes = [
        "A cell marked with ! lacks images.",
        "A cell marked with † was computed, all or in part, by code with uncommitted changes.",
        "A cell marked with ‡ was computed by another version of its method than the one that is installed.",
    ]
    assert printed(table).splitlines()[-3:] == notes
    assert "3/4 ! † ‡ " in printed(table)
    page = markdown(table)
    assert " ".join(notes) in page
    (row,) = [line for line in page.splitlines() if line.startswith("| Mask |") and "<br>" in line]
    for cell, sign in zip(row.split(" | ")[1::2], ["", " †", " †", " ! † ‡"], strict=False):
        assert cell.startswith(f"0.3000{sign}<br>")
    text = latex(table)
    assert "†" not in text and "‡" not in text
    assert "0.3000 ! $\\dagger$ $\\ddagger$" in text and "A cell marked with $\\dagger$ was computed" in text

    clean = make_table(read_cells(tmp_path, allow_partial=True)[:1])
    assert "A cell marked" not in printed(clean) + markdown(clean) + latex(clean)


def test_latex_is_balanced_and_escaped(table: pd.DataFrame) -> None:
    text = latex(table)
    for pair in ("table*", "tabular"):
        assert text.count(f"\\begin{{{pair}}}") == text.count(f"\\end{{{pair}}}") == 4
    assert "theirs\\_\\&\\_ours & - & -" in text
    tabulars = re.findall(r"tabular\}\{l(c+)\}(.*?)\\end\{tabular", text, re.DOTALL)
    assert [len(columns) for columns, _ in tabulars] == [2, 1, 6, 3], "toy at 28; vgg19 at 112, 28 and 7"
    for columns, body in tabulars:
        rows = body.partition("\\midrule")[2].partition("\\bottomrule")[0].strip().splitlines()
        assert all(len(re.findall(r"(?<!\\)&", row)) == len(columns) and row.endswith("\\\\") for row in rows)


def test_the_command(igos_bench: Command, tmp_path: Path) -> None:
    leave_run(tmp_path / "out", "mask", 28, AREAS, requested=4)
    refused = igos_bench("table", "results_dir=out")
    assert refused.returncode == 2
    assert "1 of 1 cells are incomplete: mask at 28" in refused.stderr
    assert not (tmp_path / "out" / "table.csv").exists()
    made = igos_bench("table", "results_dir=out", "allow_partial=true")
    assert made.returncode == 0 and "1 of 1 cells are incomplete" in made.stderr
    with (tmp_path / "out" / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert list(row) == list(COLUMNS)
    assert float(row["deletion_auc"]) == pytest.approx(0.3)
    assert (tmp_path / "out" / "table.md").exists() and (tmp_path / "out" / "table.tex").exists()
    assert "write true or false" in igos_bench("table", "allow_partial=yes").stderr


def test_it_needs_no_torch() -> None:
    code = "import sys, igos_bench.cli, igos_bench.layout, igos_bench.compare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
