"""The files of a run, one function at a time; test_protection.py and test_resume.py have what they are for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from igos_bench.csv_file import csv_text
from igos_bench.errors import UserError
from igos_bench.formats import COLUMNS, TIMING_COLUMNS, by_id, npz, ok_rows, read_csv, read_json
from igos_bench.results import RunDirectory, check_folder_name, short_key

MAPS = {"image_id": np.array(["a", "b"]), "saliency_map": np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)}
CURVES = {
    "image_id": np.array(["a"]),
    "hits": np.array([0, 2, 4]),
    "deletion": np.array([[0.9, 0.5, 0.1]], dtype=np.float32),
    "insertion": np.array([[0.1, 0.5, 0.9]], dtype=np.float32),
}
ROWS = [
    {"image_id": "a", "status": "ok", "deletion_auc": 1 / 3},
    {"image_id": "b", "status": "failed", "error": "no, \n"},
]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """One chunk, of two images, of which one failed."""
    directory = RunDirectory(tmp_path / "run", "paper-0123")
    directory.write_maps(0, MAPS)
    directory.commit(0, CURVES, ROWS)
    return directory


def test_a_key_is_of_the_content_and_not_of_its_order() -> None:
    assert short_key({"b": 1, "a": [1.5, None]}) == short_key({"a": [1.5, None], "b": 1}) == "cf0c4895ed70"
    assert short_key({"b": 2, "a": [1.5, None]}) != short_key({"b": 1, "a": [1.5, None]})


def test_names_of_folders() -> None:
    for name in ("a", "a.b", "A_b-1", "Z9"):
        check_folder_name("model.name", name)
    for name in ("", ".", "..", ".a", "a/b", "a b", "a\n", "ä"):
        with pytest.raises(UserError, match="model.name=.* becomes the name of a folder: write it in letters, digits"):
            check_folder_name("model.name", name)


def test_the_same_arrays_are_the_same_bytes(tmp_path: Path) -> None:
    assert npz(MAPS) == npz(MAPS)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        npz({"image_id": np.array([None])})
    assert len(npz({"zeros": np.zeros(100_000)})) < 2_000, "compressed"


def test_what_is_committed_is_read_again(directory: RunDirectory) -> None:
    maps = directory.read_maps(0)
    assert maps is not None and np.array_equal(maps["saliency_map"], MAPS["saliency_map"])
    assert directory.read_maps(1) is None and directory.read_rows(1) == [] and directory.read_results(1) == {}
    rows = directory.read_rows(0)
    assert [(row["image_id"], row["status"], row["error"]) for row in rows] == [
        ("a", "ok", ""),
        ("b", "failed", "no, \n"),
    ]
    assert float(rows[0]["deletion_auc"]) == 1 / 3
    assert tuple(rows[0]) == COLUMNS
    (result,) = directory.read_results(0).values()
    assert result["image_id"] == "a" and result["row"] == rows[0] and result["hits"].tolist() == [0, 2, 4]
    assert np.array_equal(result["map"], MAPS["saliency_map"][0])
    assert np.array_equal(result["deletion"], CURVES["deletion"][0])
    assert np.array_equal(result["insertion"], CURVES["insertion"][0])
    assert [list(chunk) for chunk in directory.results()] == [["a"]]
    assert directory.failed_ids(0) == {"b"}
    assert directory.merge().read_text() == (directory.protocol_path / "records" / "000000.csv").read_text()


def test_another_protocol_is_another_folder(directory: RunDirectory) -> None:
    assert not directory.is_scored_elsewhere(0)
    other = RunDirectory(directory.path, "rise-4567")
    assert other.is_scored_elsewhere(0) and not other.is_scored_elsewhere(1)
    assert other.read_rows(0) == [] and other.failed_ids(0) == {"b"}


def test_records_are_merged_in_the_order_of_chunks(directory: RunDirectory) -> None:
    directory.commit(10, {}, [{"image_id": "z", "status": "ok"}])
    directory.commit(2, {}, [{"image_id": "m", "status": "ok"}])
    rows = read_csv(directory.merge())
    assert rows is not None and [row["image_id"] for row in rows] == ["a", "b", "m", "z"]


def test_the_longest_listing_stays(directory: RunDirectory) -> None:
    path = directory.path / "images.txt"
    for listing, kept in (("a\nb\n", "a\nb\n"), ("a\n", "a\nb\n"), ("a\nb\nc\n", "a\nb\nc\n")):
        directory.write_listing(listing)
        assert path.read_text() == kept


def test_provenance_and_protocol_are_json(directory: RunDirectory) -> None:
    assert directory.read_provenance() is None
    directory.write_provenance({"map_key": "x", "nothing": None})
    assert directory.read_provenance() == {"map_key": "x", "nothing": None}
    directory.write_protocol({"name": "paper"})
    text = (directory.protocol_path / "protocol.json").read_text()
    assert json.loads(text) == {"name": "paper"} and text.endswith("}\n") and "\n  " in text


def test_timing_is_a_line_a_chunk(directory: RunDirectory) -> None:
    for chunk in range(2):
        directory.log_timing(chunk, dict.fromkeys(TIMING_COLUMNS, chunk))
    directory.merge()
    lines = (directory.path / "timing.csv").read_text().splitlines()
    assert lines == [",".join(TIMING_COLUMNS), ",".join("0" * len(TIMING_COLUMNS)), ",".join("1" * len(TIMING_COLUMNS))]
    (directory.path / "a file").write_text("")
    with pytest.raises(UserError, match="cannot write .*a file/timing/000000.csv: (Not a directory|File exists)"):
        RunDirectory(directory.path / "a file", "paper-0123").log_timing(0, {})


@pytest.mark.parametrize("name", ["maps/000000.npz", "paper-0123/curves/000000.npz", "paper-0123/records/000000.csv"])
def test_a_damaged_chunk_is_computed_again(directory: RunDirectory, name: str) -> None:
    path = directory.path / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(UserWarning, match=f"{name} is missing or damaged: chunk 0 is computed again"):
        assert directory.read_rows(0) == []


def test_damaged_files_are_told_from_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "records.csv"
    whole = csv_text(COLUMNS, ROWS)
    assert whole.startswith("image_id,label,") and "\r" not in whole
    for text, count in ((whole, 2), (whole[:-1], None), (whole[1:], None), (whole + "a,b\n", None), ("", None)):
        path.write_text(text)
        found = read_csv(path)
        assert (None if found is None else len(found)) == count
    path.write_bytes(b"\xff" + whole.encode())
    assert read_csv(path) is None and read_csv(tmp_path / "none") is None
    assert read_json(tmp_path / "none") is None and read_json(path / "below a file") is None
    for text in ("{", "[1]", "\0"):
        path.write_text(text)
        with pytest.raises(UserError, match="records.csv cannot be read .* restore the file, or move the folder"):
            read_json(path)


def test_rows_and_arrays_by_what_they_are_of() -> None:
    assert ok_rows(ROWS) == ROWS[:1]
    assert by_id(None, "saliency_map") == by_id({}, "saliency_map") == {}
    assert list(by_id(MAPS, "saliency_map")) == ["a", "b"]
    with pytest.raises(ValueError, match="zip"):
        by_id({**MAPS, "image_id": np.array(["a"])}, "saliency_map")
