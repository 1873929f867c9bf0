"""What a spreadsheet would run is text in every CSV, and read back as it was; numbers stay numbers."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_folders import leave_run

from igos_bench.cells import find_cells
from igos_bench.csv_file import csv_rows, csv_text
from igos_bench.formats import COLUMNS, read_csv
from igos_bench.table import write_csv

SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"
texts = (
    st.text()
    | st.builds("{}{}".format, st.sampled_from([*"=+-@\t\r\n'", "''", "-1", "=1", "\ufeff"]), st.text())
    | st.text([*SIGNS, *";\t\r\n\"', 1a"], max_size=8)
)
unicode = texts.filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))


@given(st.lists(st.tuples(unicode, unicode), max_size=4))
def test_every_text_comes_back_and_none_is_a_formula(cells: list[tuple[str, str]]) -> None:
    text = csv_text(["a", "b"], [{"a": a, "b": b} for a, b in cells])
    assert [(row["a"], row["b"]) for row in csv_rows(text)] == cells
    for row in list(csv.reader(io.StringIO(text, newline="")))[1:]:
        for cell in row:
            assert not cell.startswith(("=", "@", "\t", "\r", "\n")), cell
            assert not cell.startswith(("+", "-")) or float(cell) is not None


@pytest.mark.parametrize("separators", [";", ";,", ";\t", ";,\t"])
@given(st.lists(st.tuples(unicode, unicode), max_size=4))
def test_nor_does_a_spreadsheet_with_other_separators(separators: str, cells: list[tuple[str, str]]) -> None:
    """Quotes count where a cell of its own begins; without commas among the separators it may as well ignore them."""
    text = csv_text(["a", "b"], [{"a": a, "b": b} for a, b in cells])
    quoted = re.sub(rf'(?s)((?:^|[{separators}\r\n]))"(?:[^"]|"")*"(?=[{separators}\r\n]|$)', r"\1quoted", text)
    for seen in [quoted] if "," in separators else [quoted, text]:
        for cell in re.split(rf"[{separators}\r\n]", seen):
            shown = cell.lstrip('"')
            is_number = re.match(r"[-+][0-9.]+(e[-+]?[0-9]+)?(,|$)", shown)
            assert not shown.startswith(tuple(SIGNS)) or is_number, (cell, text)


def test_a_semicolon_or_tab_in_a_cell_is_inside_quotes() -> None:
    for text in ("a;b", "a\tb"):
        assert csv_text(["a", "b"], [{"a": text, "b": 1.5}]) == f'a,b\n"{text}",1.5\n'


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_numbers_stay_numbers(number: float) -> None:
    first = csv_text(["n"], [{"n": number}])
    assert first == f"n\n{number!r}\n"
    again = csv_text(["n"], csv_rows(first))
    assert again == first, "rows are read as text and written again"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1+cmd", "'+1+cmd"),
        ("-1", "-1"),
        ("-1e-05", "-1e-05"),
        ("-inf", "'-inf"),
        ("-1-2", "'-1-2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("'quoted", "''quoted"),
        ("a=b", "a=b"),
        ("\t=x", "\"'\t'=x\""),
        ("\r=x", "\"'\r'=x\""),
        ("a;=cmd", '"a;\'=cmd"'),
        ('a;"=cmd"', '"a;\'""=cmd"""'),
        ("a;'b", "\"a;''b\""),
        ("a; -1", '"a; -1"'),
        ("a\rb", '"a\rb"'),
        ("\udcff.png", "\\udcff.png"),
    ],
)
def test_what_is_written(text: str, written: str) -> None:
    assert csv_text(["a"], [{"a": text}]) == f"a\n{written}\n"


def test_an_image_named_like_a_formula_is_itself_in_the_table(tmp_path: Path) -> None:
    directory = leave_run(tmp_path, "igos", 28, [(0.1, 0.5), (0.2, 0.7)])
    names = ["=HYPERLINK(1).png", "'-2+3.png"]
    directory.write_listing("".join(f"{name}\n" for name in [*names, "longer than the first listing"]))
    row = {"status": "ok", "error": "", "deletion_auc": 0.1, "insertion_auc": -0.5}
    directory.commit(0, {}, [{**row, "image_id": name} for name in names])
    records = directory.merge()
    assert directory.merge().read_bytes() == records.read_bytes(), "nothing is escaped twice"
    lines = records.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["image_id", "'=HYPERLINK(1).png", "''-2+3.png"]
    assert lines[1].split(",")[COLUMNS.index("insertion_auc")] == "-0.5"
    assert [found["image_id"] for found in read_csv(records) or []] == names
    (cell,) = find_cells(tmp_path)
    assert list(cell.rows.index) == names
    assert cell.rows["insertion_auc"].tolist() == [-0.5, -0.5]


def test_a_carriage_return_in_a_reason_tears_no_row(tmp_path: Path) -> None:
    directory = leave_run(tmp_path, "igos", 28, [(0.1, 0.5)])
    directory.commit(0, {}, [{"image_id": "a", "status": "failed", "error": "bad\rmarker \n=1"}])
    (row,) = read_csv(directory.merge()) or []
    assert row["error"] == "bad\rmarker \n=1"


def test_every_column_of_a_table_is_inert(tmp_path: Path) -> None:
    write_csv(pd.DataFrame({"method": ["=cmd", "igos"], "x": [-1.5, float("nan")]}), tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "method,x\n'=cmd,-1.5\nigos,\n"
