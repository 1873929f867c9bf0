"""The files of a run, one function at a time; test_protection.py and test_resume.py have what they are for."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from igos_bench.csv_file import csv_text
from igos_bench.errors import UserError
from igos_bench.formats import COLUMNS, TIMING_COLUMNS, by_id, csv_bytes, npz, ok_rows, read_csv, read_json
from igos_bench.lease import Leases
from igos_bench.results import RunDirectory, check_folder_name, short_key
from igos_bench.tally import summary

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
    advice = "write it in letters, digits, `_`, `-` and `.`, without a `.` or `-` in front"
    for name in ("", ".", "..", ".a", "a/b", "a b", "a\n", "ä"):
        with pytest.raises(UserError, match=f"model.name=.* becomes the name of a folder: {re.escape(advice)}$"):
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
    assert directory.chunk_of() == {"a": 0, "b": 0}
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


def test_damaged_rows_are_not_merged(directory: RunDirectory) -> None:
    directory.commit(1, {}, [{"image_id": "c", "status": "ok"}])
    path = directory.records.loose(0)
    path.write_bytes(path.read_bytes()[:-5])
    assert [row["image_id"] for row in read_csv(directory.merge()) or []] == ["c"]


def test_a_run_that_has_nothing_yet_is_merged_into_a_header(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run", "paper-0123")
    assert directory.merge().read_bytes() == csv_bytes([]) and not (directory.path / "timing.csv").exists()


def test_records_that_cannot_be_written(directory: RunDirectory) -> None:
    (directory.protocol_path / "records.csv").mkdir()
    with pytest.raises(UserError, match="cannot write .*paper-0123/records.csv: Is a directory"):
        directory.merge()


def test_what_cannot_be_written_under_a_lease_is_named(directory: RunDirectory) -> None:
    directory.maps.loose(1).mkdir()
    message = "cannot write .*maps/000001.npz: Is a directory"
    with Leases(directory.path / "leases", 30) as leases, pytest.raises(UserError, match=message):
        directory.write_maps(1, MAPS, leases.claim("000001"))


@pytest.mark.parametrize("leased", [False, True])
def test_a_power_cut_takes_only_what_is_computed_again(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, leased: bool
) -> None:
    """What would be missed, or taken for whole, is flushed to the disk; maps and curves are not, see `results`."""
    flush, flushed = os.fsync, []

    def watched(file: int) -> None:
        flush(file)
        flushed.append(Path(f"/proc/self/fd/{file}").readlink().name.removeprefix(".").rsplit(".", 2)[0])

    monkeypatch.setattr(os, "fsync", watched)
    with Leases(directory.path / "leases", 30) as leases:
        lease = leases.claim("000001") if leased else None
        directory.write_provenance({}, lease)
        directory.write_listing("a\nb\n", lease)
        directory.write_protocol({})
        directory.write_maps(1, MAPS, lease)
        directory.log_timing(1, {}, lease)
        assert flushed == ["run.json", "images.txt", "protocol.json"]
        directory.commit(1, CURVES, ROWS, lease)
        directory.merge()
        assert flushed[3:] == ["000001.csv", "timing.csv", "records.csv"]


def test_a_folder_is_looked_at_anew_by_changing_it(directory: RunDirectory) -> None:
    folder = directory.protocol_path / "records"
    os.utime(folder, (0, 0))
    directory.look_anew()
    assert folder.stat().st_mtime > 0 and [path.name for path in folder.iterdir()] == ["000000.csv"]


def test_the_longest_listing_stays(directory: RunDirectory) -> None:
    path = directory.path / "images.txt"
    for listing, kept in (("a\nb\n", "a\nb\n"), ("a\n", "a\nb\n"), ("a\nb\nc\n", "a\nb\nc\n")):
        directory.write_listing(listing)
        assert path.read_text() == kept


def test_provenance_and_protocol_are_json(directory: RunDirectory) -> None:
    assert directory.read_provenance() is None
    directory.write_provenance({"map_key": "x", "nothing": None})
    assert directory.read_provenance() == {"map_key": "x", "nothing": None}
    assert (directory.path / "run.json").read_text() == '{\n  "map_key": "x",\n  "nothing": null\n}\n'
    directory.write_protocol({"name": "paper"})
    assert (directory.protocol_path / "protocol.json").read_text() == '{\n  "name": "paper"\n}\n'


def test_timing_is_a_line_a_chunk_and_attempt(directory: RunDirectory) -> None:
    for chunk, value in ((0, 0), (1, 2), (0, 1)):  # a chunk that is tried again has another
        directory.log_timing(chunk, dict.fromkeys(TIMING_COLUMNS, value))
    directory.merge()
    lines = (directory.path / "timing.csv").read_text().splitlines()
    assert lines == [",".join(TIMING_COLUMNS), *(",".join(value * len(TIMING_COLUMNS)) for value in "012")]
    (directory.path / "a file").write_text("")
    with pytest.raises(UserError, match="cannot write .*a file/timing/000000.csv: (Not a directory|File exists)"):
        RunDirectory(directory.path / "a file", "paper-0123").log_timing(0, {})


@pytest.mark.parametrize("name", ["maps/000000.npz", "paper-0123/curves/000000.npz", "paper-0123/records/000000.csv"])
def test_a_damaged_chunk_is_computed_again(directory: RunDirectory, name: str) -> None:
    path = directory.path / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(UserWarning, match=f"{name} is missing or damaged: chunk 0 is computed again"):
        assert directory.read_rows(0) == []


@pytest.mark.parametrize("name", ["maps/000000.npz", "paper-0123/curves/000000.npz"])
def test_a_chunk_that_has_lost_a_file_is_computed_again(directory: RunDirectory, name: str) -> None:
    (directory.path / name).unlink()
    with pytest.warns(UserWarning, match=f"{name} is missing or damaged: chunk 0 is computed again"):
        assert directory.read_rows(0) == []


def test_what_is_not_done_is_not_damaged(directory: RunDirectory) -> None:
    directory.write_maps(1, MAPS)  # its rows are still to come
    directory.commit(2, {}, [])  # withdrawn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert directory.read_rows(1) == directory.read_rows(2) == directory.read_rows(3) == []
        assert [(chunk, len(rows)) for chunk, _, rows in directory.scan()] == [(0, 2), (2, 0)]


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
    for text, reason in (("{", "Expecting"), ("[1]", "expected an object, found list"), ("\0", "Expecting")):
        path.write_text(text)
        what = (
            rf"records.csv cannot be read \({reason}.*\)\. The maps .* restore the file, or move the folder {tmp_path}"
        )
        with pytest.raises(UserError, match=what):
            read_json(path)


def test_what_rows_come_to() -> None:
    """Of maps that were there already nothing says how long they took."""
    ok = {"status": "ok", "error": "", "explain_seconds": "", "score_seconds": "0.5"}
    failed = {"status": "failed", "error": "no", "explain_seconds": "8", "score_seconds": ""}
    assert summary([ok, {**ok, "explain_seconds": "2.0", "score_seconds": ""}, failed, failed]) == {
        "done": 2,
        "failed": {"no": 2},
        "seconds": 2.5,
    }


def test_rows_and_arrays_by_what_they_are_of() -> None:
    assert ok_rows(ROWS) == ROWS[:1]
    assert by_id(None, "saliency_map") == by_id({}, "saliency_map") == {}
    assert list(by_id(MAPS, "saliency_map")) == ["a", "b"]
    with pytest.raises(ValueError, match="zip"):
        by_id({**MAPS, "image_id": np.array(["a"])}, "saliency_map")
