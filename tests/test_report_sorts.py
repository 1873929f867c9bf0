"""That every column of the report's tables and of its gallery sorts, in a real browser: `make test-browser` runs it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from browsing import Open, column
from report_folders import leave_maps, leave_photographs
from result_folders import leave_run

from igos_bench.report import write_report

pytestmark = pytest.mark.browser


def natural(text: str) -> list[tuple[int, str]]:
    """The order in which people count: image2 before image10, digits before letters."""
    return [(int(part), "") if part.isdecimal() else (10**12, part.lower()) for part in re.findall(r"\d+|\D+", text)]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in whose tables no column has one value alone."""
    folder = tmp_path_factory.mktemp("tables")
    leave_photographs(folder / "images", [f"3/plain{i:02}.png" for i in range(12)])
    results = folder / "results"
    leave_maps(results, folder / "images", "igos", 28, failed=[1, 10])
    leave_maps(results, folder / "images", "igos", 14)
    leave_maps(results, folder / "images", "mask", 28, done=8)
    for resolution in (28, 7):  # which the paper has no numbers of
        leave_maps(results, folder / "images", "rise", resolution)
    # One better in deletion, the other in insertion; how many passes they took is not known.
    leave_run(results, "excitation_bp", 14, [(0.1 + i / 100, 0.5) for i in range(15)])
    alone = leave_run(results, "grad_cam", 14, [(0.3 + i / 50, 0.7) for i in range(14)] + [None])
    run = alone.read_provenance()
    assert run
    run["config"]["timing"] = "single"
    alone.write_provenance({**run, "processor": "another"})
    return write_report(results)[0]


def number(text: str) -> float | None:
    """Of a cell of a table, of an interval its lower end; None where it has none."""
    text = text.split(", ")[0]
    found = float(text.replace("\N{MINUS SIGN}", "-")) if text not in ("", "-") else math.nan
    return None if math.isnan(found) else found


@pytest.mark.parametrize("section", ["areas", "differences", "time", "failures"])
def test_a_table_sorts_by_every_column(tables: Path, open_page: Open, section: str) -> None:
    page = open_page(tables, section)
    heads = page.locator(f"#{section} thead th:not(:empty)")
    assert heads.count() == {"areas": 12, "differences": 10, "time": 9, "failures": 5}[section]
    for i in range(heads.count()):
        head = heads.nth(i)
        place = head.evaluate("head => head.cellIndex") + 1
        cells = page.locator(f"#{section} tbody tr > :nth-child({place})")
        orders = []
        for order in ("ascending", "descending"):
            head.locator("button").press("Enter")
            assert head.get_attribute("aria-sort") == order
            orders.append(
                cells.evaluate_all("cells => cells.map((cell) => cell.dataset.value ?? cell.textContent.trim())")
            )
        name, [rising, falling] = head.inner_text(), orders
        assert len(set(rising)) > 1, f"{name}: something to sort"
        if head.get_attribute("class") == "text":
            assert rising == sorted(rising, key=natural) and falling == sorted(rising, key=natural, reverse=True), name
        else:
            known = [[value for text in texts if (value := number(text)) is not None] for texts in orders]
            assert known[0] == sorted(known[0]) and known[1] == sorted(known[0], reverse=True), name
            for texts in orders:
                assert [number(text) for text in texts[len(known[0]) :]] == [None] * (len(texts) - len(known[0])), (
                    f"{name}: what has no number is last"
                )
    assert page.locator("th[aria-sort=ascending], th[aria-sort=descending]").count() == 1


def test_intervals_sort_by_their_lower_ends(tables: Path, open_page: Open) -> None:
    page = open_page(tables, "differences")
    button = page.locator("#differences thead button", has_text="95 % interval")
    assert button.get_attribute("title") == "Sorts by the lower end"
    button.click()
    lower = [number(text) for text in column(page, "#differences .interval:not(th)")]
    assert len(lower) > 4 and lower == sorted(lower)  # type: ignore[type-var]


def test_the_gallery_sorts_by_every_column(report: Path, open_page: Open) -> None:
    page = open_page(report, "images", size=(1360, 6000))  # so that all rows are drawn
    page.fill("[name=query]", "plain0")
    page.select_option("[name=sort]", label="Ins. \N{MINUS SIGN} del., ascending")
    heads = page.locator("#columns button").evaluate_all("buttons => buttons.map((button) => button.name)")
    assert column(page, "#columns button")[-1] == "Ins. \N{MINUS SIGN} del."
    assert "higher is better" in str(page.get_attribute("#columns button[name=Difference]", "title"))
    shown = {
        "Image": "row.querySelector('.id').textContent",
        "Class": "row.querySelector('.class').textContent.split(' ')[0]",
        "Method": "row.querySelector('.method').firstChild.data",
        "Resolution": "row.querySelector('.resolution').textContent",
        "Deletion": "row.querySelector('.deletion-text').textContent",
        "Insertion": "row.querySelector('.insertion-text').textContent",
        "Difference": "row.lastChild.textContent",
        "Probability": "row.querySelector('.class').textContent.split(' ').at(-1)",
    }
    assert [name for name in shown if name != "Probability"] == heads
    for name, text in shown.items():
        for order in ("ascending", "descending"):
            if name in heads:
                page.click(f"#columns button[name={name}]")
                sorts = page.locator("#columns [role=columnheader][aria-sort]").evaluate_all(
                    "heads => heads.map((head) => [head.firstChild.name, head.getAttribute('aria-sort')])"
                )
                assert sorts == [[head, order if head == name else "none"] for head in heads]
            else:
                page.select_option("[name=sort]", label=f"{name}, {order}")
            texts = page.evaluate(
                f"[...document.querySelectorAll('.row')].sort((a, b) => a.offsetTop - b.offsetTop).map((row) => {text})"
            )
            assert len(texts) > 45 and len(set(texts)) > 1
            key = natural if name in ("Image", "Class", "Method") else number
            assert texts == sorted(texts, key=key, reverse=order == "descending"), name  # type: ignore[arg-type]
