"""`check-data` on the sample and on ImageNets that the test makes."""

from __future__ import annotations

from pathlib import Path

import imagenets
import pytest
from conftest import Command

from igos_bench.check_data import judge


def test_the_sample(igos_bench: Command) -> None:
    ended = igos_bench("check-data")
    assert ended.returncode == 0, ended.stderr
    assert "images    20 found, 20 would run" in ended.stdout
    assert "decoding  20 of 20 images" in ended.stdout
    assert "accuracy  95.0 % top-1 of efficientnet_lite0 on 20 images, published 75.0 %" in ended.stdout


def test_a_tar_with_a_member_that_is_no_image(igos_bench: Command, tmp_path: Path) -> None:
    members = [(imagenets.name(number), imagenets.jpeg(number)) for number in range(1, 5)]
    imagenets.write_tar(tmp_path / "ILSVRC2012_img_val.tar", [*members, (imagenets.name(5), b"<html>not found</html>")])
    ended = igos_bench("check-data", "data=imagenet", f"data.root={tmp_path}", "data.limit=3")
    assert ended.returncode == 3, ended.stderr
    assert "read in place" in ended.stdout
    assert "images    5 found, 3 would run" in ended.stdout
    assert "labels    none" in ended.stdout
    assert "decoding  4 of 5" in ended.stdout
    assert "accuracy  not checked: there are no labels" in ended.stdout
    assert f"{imagenets.name(5)} does not decode: not an image" in ended.stderr


@pytest.mark.parametrize(
    ("accuracy", "images", "published", "message"),
    [
        (75.0, 200, 75.0, None),
        (64.0, 200, 75.0, None),  # 5 points of preprocessing, 10 of chance
        (55.0, 200, 75.0, "far from the published 75.0 %"),
        (95.0, 200, 75.0, "far from the published 75.0 %"),
        (0.5, 200, 75.0, "near chance"),
        (0.5, 200, None, "near chance"),
        (30.0, 200, None, None),
        (0.0, 3, 75.0, None),  # too few to say
    ],
)
def test_judgement(accuracy: float, images: int, published: float | None, message: str | None) -> None:
    warnings = judge(accuracy, images, published)
    assert len(warnings) == (message is not None)
    assert message is None or message in warnings[0]
