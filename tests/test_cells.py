from __future__ import annotations

from pathlib import Path

import pytest
from result_folders import leave_run

from igos_bench.cells import read_cells
from igos_bench.errors import UserError
from igos_bench.formats import COLUMNS

AREAS = [(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)]


def test_cells_come_in_order_with_their_numbers(tmp_path: Path) -> None:
    leave_run(tmp_path, "mask", 28, AREAS)
    leave_run(tmp_path, "igos", 28, AREAS)
    directory = leave_run(tmp_path, "igos", 112, AREAS)
    cells = read_cells(tmp_path)
    assert [(cell.method, cell.resolution, cell.variant) for cell in cells] == [
        ("igos", 112, ""), ("igos", 28, ""), ("mask", 28, ""),
    ]  # fmt: skip
    assert all(cell.complete and cell.n == cell.requested == 3 for cell in cells)
    assert list(cells[0].rows.index) == ["image0", "image1", "image2"]
    assert list(cells[0].rows["deletion_auc"]) == [0.1, 0.2, 0.3]
    assert cells[0].directory.protocol_path == directory.protocol_path
    assert [list(results) for results in directory.results()] == [[], []]  # two chunks, without maps


def test_runs_that_differ_are_cells_of_their_own(tmp_path: Path) -> None:
    for seed in (0, 1):
        leave_run(tmp_path, "igos", 28, AREAS, seed=seed)
    leave_run(tmp_path, "mask", 28, AREAS, parameters={"lambdas": {"28": [1, 2], "14": [3, 4]}})
    leave_run(tmp_path, "mask", 28, AREAS, parameters={"lambdas": "tuned"})
    leave_run(tmp_path, "rise", 28, AREAS)
    leave_run(tmp_path, "rise", 28, AREAS, n_steps=50)
    variants = [(cell.method, cell.variant) for cell in read_cells(tmp_path)]
    assert variants == [
        ("igos", "seed=0"), ("igos", "seed=1"), ("mask", ""), ("mask", "lambdas=tuned"),
        ("rise", "protocol.n_steps=4"), ("rise", "protocol.n_steps=50"),
    ]  # fmt: skip


def test_runs_that_differ_in_nothing_that_is_written_down_are_told_apart_by_key(tmp_path: Path) -> None:
    first = leave_run(tmp_path, "igos", 28, AREAS)
    copy = first.path.with_name("0123456789ab")
    first.path.rename(copy)
    run_json = (copy / "run.json").read_text().replace(first.path.name, "0123456789ab")
    (copy / "run.json").write_text(run_json)
    leave_run(tmp_path, "igos", 28, AREAS)
    variants = {cell.variant for cell in read_cells(tmp_path)}
    assert variants == {"run=0123456789ab", f"run={first.path.name}"}


def test_incomplete_cells_are_refused_by_name(tmp_path: Path) -> None:
    leave_run(tmp_path, "igos", 28, AREAS, requested=5_000)
    leave_run(tmp_path, "mask", 28, [*AREAS, None])
    leave_run(tmp_path, "rise", 28, AREAS)
    started = leave_run(tmp_path, "rise", 224, [], requested=7)  # killed in its first chunk
    assert not (started.protocol_path / "records").exists()
    message = (
        "3 of 4 cells are incomplete: igos at 28 on toy, images, under paper has 3 of 5,000 images; mask at 28 on toy, "
        r"images, under paper has 3 of 4 images \(1 failed\); rise at 224 on toy, images, under paper has 0 of 7 "
        "images. Start their runs again .* allow_partial=true"
    )
    with pytest.raises(UserError, match=message):
        read_cells(tmp_path)
    counts = {(c.method, c.resolution): (c.n, c.requested, c.failed) for c in read_cells(tmp_path, allow_partial=True)}
    assert counts == {
        ("igos", 28): (3, 5000, 0),
        ("mask", 28): (3, 4, 1),
        ("rise", 28): (3, 3, 0),
        ("rise", 224): (0, 7, 0),
    }


def test_a_smaller_limit_afterwards_changes_nothing(tmp_path: Path) -> None:
    directory = leave_run(tmp_path, "igos", 28, AREAS)
    directory.write_listing("image0\n")
    (cell,) = read_cells(tmp_path)
    assert (cell.n, cell.requested) == (3, 3)


def test_cells_have_the_columns_that_were_asked_for(tmp_path: Path) -> None:
    leave_run(tmp_path, "igos", 28, AREAS)
    (whole,), (few,), (bare,) = (
        read_cells(tmp_path, columns=columns) for columns in (COLUMNS, ("image_id", "ties", "error"), ("deletion_auc",))
    )
    assert (whole.n, list(few.rows), list(bare.rows)) == (few.n, ["ties", "error"], ["deletion_auc"])
    assert few.rows.index.equals(whole.rows.index) and bare.rows.index.tolist() == list(range(whole.n))
    assert bare.rows["deletion_auc"].tolist() == whole.rows["deletion_auc"].tolist() and bare.complete


def test_a_damaged_chunk_stops_it_and_records_csv_is_not_needed(tmp_path: Path) -> None:
    directory = leave_run(tmp_path, "igos", 28, AREAS)
    (directory.protocol_path / "records.csv").write_text("torn")
    assert read_cells(tmp_path)[0].n == 3
    chunk = directory.protocol_path / "records" / "000001.csv"
    chunk.write_text(chunk.read_text()[:-3])
    with pytest.raises(UserError, match=r"000001.csv is damaged .* computes that chunk again and no other"):
        read_cells(tmp_path)


def test_no_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs under .* make one with `igos-bench method=igos resolution=28`"):
        read_cells(tmp_path)
