"""Very many rows, read at once, are what they are one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from igos_bench.formats import COLUMNS, csv_bytes, rows_of
from igos_bench.rows import TEXTS, Rows, failed_rows, frame_of, numbers, plain_ids

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
NUMBER = st.none() | st.floats(allow_nan=False) | st.integers(0, 999)
ROWS = st.lists(st.fixed_dictionaries({key: TEXT if key in TEXTS else NUMBER for key in COLUMNS}), max_size=4)


@given(ROWS, ROWS)
@example([], [dict.fromkeys(COLUMNS) | {"image_id": "a", "status": "failed", "error": "\n="}])
def test_a_frame_has_what_the_rows_have(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    files = [csv_bytes(one), csv_bytes(other)]
    expected = [row for content in files for row in rows_of(content) or []]
    found = frame_of(files)
    assert tuple(found.columns) == COLUMNS and len(found) == len(expected) == len(one) + len(other)
    assert {found[key].dtype for key in COLUMNS if key not in TEXTS} == {np.dtype(np.float64)}
    for i, row in enumerate(expected):
        for key in COLUMNS:
            value = found[key].iloc[i]
            if key in TEXTS:
                assert value == row[key]
            else:
                assert value == float(row[key]) if row[key] else math.isnan(value)


def test_a_frame_has_the_columns_that_were_asked_for() -> None:
    content = csv_bytes([{"image_id": "=a", "ties": 0.1, "status": "ok"}])
    assert frame_of([content, content], ["ties", "image_id"]).to_dict("list") == {
        "image_id": ["=a", "=a"],
        "ties": [0.1, 0.1],
    }
    with pytest.raises(ValueError, match="could not convert string to float|Unable to parse|invalid"):
        frame_of([content.replace(b"0.1", b"edited")])


def test_rows_are_the_same_as_text() -> None:
    packed = csv_bytes([{"image_id": i, "ties": i / 7, "status": "ok"} for i in range(3)])
    loose = [{"image_id": "3", "ties": "0.25", "status": "ok"}, {"image_id": "4", "status": "failed"}]
    rows = Rows([packed, loose, packed])
    assert len(rows) == 8 and len(list(rows)) == 8
    assert [row["image_id"] for row in rows] == list("01234012")
    assert rows[3] == loose[0] and rows[-1]["ties"] == str(2 / 7) and rows[3:5] == loose
    assert failed_rows(rows) == loose[1:] == failed_rows(list(rows))
    for key in ("ties", "deletion_auc"):
        assert sorted(numbers(rows, key)) == sorted(numbers(list(rows), key))
    assert numbers(rows, "ties").sum() == pytest.approx(0.25 + 6 / 7)
    assert len(numbers(Rows([]), "ties")) == len(numbers([], "ties")) == 0
    assert numbers([], "ties").dtype == np.float64


def test_ids_are_known_at_a_look_or_not_at_all() -> None:
    assert plain_ids(csv_bytes([{"image_id": "a/b.png"}, {"image_id": "ä"}])) == ["a/b.png", "ä"]
    assert plain_ids(csv_bytes([])) == []
    for name in ("a,b", "=a", 'a"b', "a\nb"):
        assert plain_ids(csv_bytes([{"image_id": name}])) is None
