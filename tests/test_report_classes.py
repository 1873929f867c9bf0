"""That the gallery names classes where the network of the cell has ImageNet's, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import Open, column, shoot
from report_folders import leave_maps, leave_photographs

from igos_bench.report import write_report

pytestmark = pytest.mark.browser


def test_names_stand_where_the_network_has_them(tmp_path: Path, open_page: Open) -> None:
    images, results = tmp_path / "images", tmp_path / "results"
    leave_photographs(images, ["3/a.png", "7/b.png"])
    network = {"library": "torchvision", "architecture": "resnet50", "weights": "pretrained"}
    leave_maps(results, images, "igos", 28, model="resnet50", network=network)
    leave_maps(results, images, "igos", 28, model="toy")
    page = open_page(write_report(results)[0], "images")
    groups = column(page, "#images [name=group] option")
    assert [group.split(",")[0] for group in groups] == ["resnet50", "toy"]
    wanted = {"resnet50": ["cock (7)", "tiger shark (3)"], "toy": ["3", "7"]}
    for group in groups:
        page.select_option("#images [name=group]", label=group)
        names = wanted[group.split(",")[0]]
        assert column(page, "#images [name=class] option") == ["all", *names]
        texts = column(page, ".row .class")
        assert len(texts) == 2 and all(any(text.startswith(name) for text in texts) for name in names), texts
        assert f"predicted {next(name for name in names if '3' in name)}" in " ".join(texts)
        page.locator(".row").first.click()
        page.wait_for_selector("#curves svg")
        facts = page.locator("#viewer").inner_text()
        assert f"predicted {next(name for name in names if '3' in name)}" in facts and "label " in facts
        assert ("shark" in facts) is (group == groups[0])
        shoot(page, f"classes-{group.split(',')[0]}")
        page.keyboard.press("Escape")
