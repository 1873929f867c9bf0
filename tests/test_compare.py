from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from result_folders import leave_run

from igos_bench.cells import read_cells
from igos_bench.compare import COLUMNS, compare
from igos_bench.errors import UserError

DRAWS = np.random.default_rng(0)
BASE = DRAWS.random((12, 2)) * 0.5


def pairs(shift: float) -> list[tuple[float, float]]:
    return [(float(d) + shift + 0.001 * i, float(s)) for i, (d, s) in enumerate(BASE)]


def test_differences_are_paired(tmp_path: Path) -> None:
    """The images differ by far more than the methods: only pairing sees that one is always 0.01 or more lower."""
    leave_run(tmp_path, "igos", 28, pairs(0))
    leave_run(tmp_path, "mask", 28, [(d + 0.01, s) for d, s in pairs(0)])
    leave_run(tmp_path, "rise", 28, [(d + 0.01 + 0.001 * i, s) for i, (d, s) in enumerate(pairs(0))])
    leave_run(tmp_path, "rise", 224, pairs(0))
    table = compare(read_cells(tmp_path))
    assert tuple(table.columns) == COLUMNS
    assert list(zip(table["resolution"], table["method"], table["other"], table["area"], strict=True)) == [
        (28, one, other, area)
        for one, other in (("igos", "mask"), ("igos", "rise"), ("mask", "rise"))
        for area in ("deletion", "insertion")
    ], "224 has one method only"
    assert set(table["n"]) == {12} and set(table["comparisons"]) == {6}
    first, same = table.iloc[0], table.iloc[1]
    assert first["difference"] == pytest.approx(-0.01)
    assert (same["difference"], same["ci_low"], same["ci_high"], same["wilcoxon_p"]) == (0, 0, 0, 1)
    third = table.iloc[2]
    assert third["difference"] == pytest.approx(-0.01 - 0.001 * 5.5)
    assert third["ci_low"] < third["difference"] < third["ci_high"] < -0.01
    assert third["wilcoxon_p"] == pytest.approx(2 / 2**12)
    assert third["holm_p"] == pytest.approx(min(1, 6 * 2 / 2**12))


def test_only_images_that_both_have(tmp_path: Path) -> None:
    leave_run(tmp_path, "igos", 28, [(0.1, 0.5), None, (0.3, 0.7), (0.5, 0.5)])
    leave_run(tmp_path, "mask", 28, [None, (0.9, 0.9), (0.4, 0.6), (0.7, 0.1)])
    row = compare(read_cells(tmp_path, allow_partial=True)).iloc[0]
    assert (row["n"], row["difference"]) == (2, pytest.approx(-0.15))


def test_families_do_not_mix(tmp_path: Path) -> None:
    for model in ("one", "other"):
        for method in ("igos", "mask"):
            leave_run(tmp_path, method, 28, pairs(0.01 * (method == "mask")), model=model)
    table = compare(read_cells(tmp_path))
    assert len(table) == 4 and set(table["comparisons"]) == {2}


def test_nothing_to_compare(tmp_path: Path) -> None:
    leave_run(tmp_path, "igos", 28, pairs(0))
    with pytest.raises(UserError, match="nothing to compare: .* run another one"):
        compare(read_cells(tmp_path))


def test_the_command(igos_bench: Command, tmp_path: Path) -> None:
    for method in ("igos", "mask"):
        leave_run(tmp_path / "out", method, 28, pairs(0.01 * (method == "mask")))
    ended = igos_bench("compare", "results_dir=out")
    assert ended.returncode == 0, ended.stderr
    assert "igos - mask 12 -0.0100 [-0.0100, -0.0100]" in " ".join(ended.stdout.split())
    assert (tmp_path / "out" / "comparison.csv").read_text().startswith(",".join(COLUMNS))


def test_a_pair_without_common_images_is_passed_over(tmp_path: Path) -> None:
    for method, first in (("igos", 0), ("mask", 0), ("rise", 6)):
        leave_run(tmp_path, method, 28, pairs(0)[first:])
    cells = read_cells(tmp_path)
    cells = [replace(c, rows=c.rows.rename(index=lambda i: f"other_{i}")) if c.method == "rise" else c for c in cells]
    with pytest.warns(UserWarning) as warned:
        table = compare(cells)
    assert [str(w.message).split(":")[0] for w in warned] == [
        f"{m} and rise at 28 are not compared" for m in ("igos", "mask")
    ]
    assert set(zip(table["method"], table["other"], strict=True)) == {("igos", "mask")}
    assert set(table["comparisons"]) == {2}
