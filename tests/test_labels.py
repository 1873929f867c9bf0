"""Every source of labels gives the index that models use, or one message."""

from __future__ import annotations

import gzip
from pathlib import Path

import imagenets
import pytest
from imagenets import make_devkit, make_solution, name

from igos_bench.errors import UserError
from igos_bench.labels import find_labels, imagenet_wnids, read_labels


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        read_labels(str(path))
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    return str(raised.value)


def test_wnids_are_in_the_order_of_the_classes() -> None:
    wnids = imagenet_wnids()
    assert len(wnids) == 1000
    assert list(wnids) == sorted(wnids)
    assert wnids["n02106662"] == 235  # German shepherd


def test_devkit(tmp_path: Path) -> None:
    assert read_labels(str(make_devkit(tmp_path))) == imagenets.labels()


def test_kaggle(tmp_path: Path) -> None:
    assert read_labels(str(make_solution(tmp_path))) == imagenets.labels()


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(f"\ufeffimage_id,label\r\n{name(1)},n02106662\r\n\r\n{name(2)[:-5]},999\r\n", encoding="utf-8")
    assert read_labels(str(path)) == {name(1): 235, name(2): 999}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the first line is '', expected image_id,label"),
        (b"a,1\n", "the first line is 'a,1', expected image_id,label: give ILSVRC2012_devkit_t12.tar.gz, "),
        (b"image_id,label\na,0\nb,1000\n", ", line 3: the label of b is '1000', neither one of ImageNet's wnids nor"),
        (b"image_id,label\na,n99999999\n", "the label of a is 'n99999999'"),
        (b"image_id,label\na,tench\n", "for those give the devkit"),
        (b"image_id,label\na\n", "the label of a is ''"),
        (b"image_id,label\na,1\na.JPEG,2\n", ", line 3: a.JPEG is there twice, with different labels"),
        (b"\xff\xfe\x00", "cannot be read ('utf-8' codec"),
        (b"image_id,label\na,1\0\n", "the label of a is '1\\x00'"),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    assert message in refusal(path)


def test_no_file(tmp_path: Path) -> None:
    assert "does not exist: give ILSVRC2012_devkit_t12.tar.gz, LOC_val" in refusal(tmp_path / "none.csv")
    assert "cannot be read (not a regular file but a folder)" in refusal(tmp_path)


def test_devkits_of_other_years(tmp_path: Path) -> None:
    path = make_devkit(tmp_path, truth_name="ILSVRC2010_validation_ground_truth.txt")
    assert "has no ILSVRC2012_validation_ground_truth.txt, so it is not the devkit of ILSVRC 2012: give" in refusal(
        path
    )
    path = make_devkit(tmp_path, id_field="ILSVRC2010_ID")
    assert "its meta.mat has no synsets with ILSVRC2012_ID and WNID" in refusal(path)
    wnids = list(imagenet_wnids())
    path = make_devkit(tmp_path, wnids=[*wnids[:-2], "n99999998", "n99999999"])
    assert "the 1000 classes of its meta.mat are not those of ILSVRC 2012 (2 unknown wnids)" in refusal(path)
    path = make_devkit(tmp_path, wnids=wnids[:120], truth=[1])  # the dogs of task 3
    assert "the 122 classes of its meta.mat are not those of ILSVRC 2012" in refusal(path)
    path = make_devkit(tmp_path, truth=[1, 2, 1001])
    assert "line 3 of ILSVRC2012_validation_ground_truth.txt is '1001', expected 1 to 1000" in refusal(path)


def test_damaged_devkit(tmp_path: Path) -> None:
    path = make_devkit(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read (" in refusal(path)
    path.write_bytes(b"")
    assert "cannot be read (" in refusal(path)
    path.write_bytes(gzip.compress(b"no tar"))
    assert "cannot be read (" in refusal(path)
    with_bad_meta = [
        ("d/meta.mat", b"no matrix"),
        ("d/ILSVRC2012_validation_ground_truth.txt", b"1\n"),
    ]
    imagenets.write_tar(tmp_path / "bad.tar", with_bad_meta)
    assert "its meta.mat has no synsets" in refusal(tmp_path / "bad.tar")


def test_which_file_is_found(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert find_labels([first, second]) is None
    devkit = make_devkit(second)
    assert find_labels([first, second]) == devkit
    solution = make_solution(second)
    assert find_labels([first, second]) == solution
    devkit = make_devkit(first, file_name="ILSVRC2017_devkit.tar.gz")
    assert find_labels([first, second]) == devkit
