"""The same images and labels from every layout, and one message for what is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imagenets
import pytest
from imagenets import make_devkit, make_flat, make_kaggle, make_solution, make_tar, make_wnid_folders, name
from PIL import Image

from igos_bench.config import DataConfig
from igos_bench.data import Manifest, read_manifest
from igos_bench.errors import UserError


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def manifest(root: Path | None, **options: object) -> Manifest:
    return read_manifest(DataConfig(name="imagenet", layout="imagenet", root=root and str(root), **options))  # type: ignore[arg-type]


def labels(found: Manifest) -> dict[str, int | None]:
    return {image.image_id: image.label for image in found.images}


def refusal(root: Path | None, **options: object) -> str:
    with pytest.raises(UserError) as raised:
        manifest(root, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def tar_with_devkit(root: Path) -> Path:
    make_devkit(root)
    make_tar(root)
    return root


def tar_itself(root: Path) -> Path:
    make_devkit(root)
    return make_tar(root)


def flat_with_devkit_beside(root: Path) -> Path:
    make_devkit(root)
    return make_flat(root / "val")


def flat_below_with_devkit(root: Path) -> Path:
    return flat_with_devkit_beside(root).parent


def flat_with_solution(root: Path) -> Path:
    return make_solution(make_flat(root)).parent


def wnid_folders_below(root: Path) -> Path:
    return make_wnid_folders(root / "val").parent


LAYOUTS: dict[Callable[[Path], Path], str] = {
    tar_with_devkit: "the tar ",
    tar_itself: "the tar ",
    flat_with_devkit_beside: "a flat folder, ",
    flat_below_with_devkit: "a flat folder, ",
    flat_with_solution: "a flat folder, ",
    make_wnid_folders: "1,000 wnid folders in ",
    wnid_folders_below: "1,000 wnid folders in ",
    make_kaggle: "a flat folder, ",
}


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_every_layout_gives_the_same_images(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    reference = manifest(make_flat(tmp_path / "reference" / "val"))
    assert (len(reference.images), reference.labels) == (12, None)
    found = manifest(make(tmp_path / "imagenet"))
    assert found.layout.startswith(LAYOUTS[make])
    assert found.sha256 == reference.sha256
    assert found.listing(5) == reference.listing(5)
    assert [image.image_id for image in found.images] == [image.image_id for image in reference.images]
    assert [image.open().read() for image in found.images] == [image.open().read() for image in reference.images]
    assert labels(found) == imagenets.labels()


def test_order_is_part_of_every_published_number(tmp_path: Path) -> None:
    first = manifest(make_flat(tmp_path)).listing(3).split()
    assert first == [name(number) for number in (5, 2, 3)]  # by sha256 of "0|ILSVRC2012_val_..."


def test_a_resized_copy_is_not_the_same_data(tmp_path: Path) -> None:
    whole, resized = (manifest(make_flat(tmp_path / name)) for name in ("whole", "resized"))
    assert resized.sha256 == whole.sha256
    for image in resized.images:
        Image.open(image.path).resize((20, 15)).save(image.path, "JPEG")
    again = manifest(tmp_path / "resized")
    assert again.listing(None) == whole.listing(None)
    assert again.sha256 != whole.sha256


def test_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from igos_bench.config import DataConfig; from igos_bench.data import read_manifest;"
        "found = read_manifest(DataConfig(name='imagenet', layout='imagenet', root=sys.argv[1]));"
        "assert len(found.images) == 12 and found.labels; sys.exit(bool({'torch', 'timm'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tar_with_devkit(tmp_path))]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent, timeout=60)


def test_without_labels(tmp_path: Path) -> None:
    found = manifest(make_tar(tmp_path))
    assert found.labels is None
    assert set(labels(found).values()) == {None}


def test_own_list(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(f"{name(7)}\n{name(2)}\n")
    found = manifest(make_kaggle(tmp_path / "imagenet"), list=str(tmp_path / "mine.txt"))
    assert list(labels(found)) == [name(7), name(2)]
    (tmp_path / "mine.txt").write_text(f"{name(7)}\n{name(13)}\n{name(14)}\n")
    message = refusal(tmp_path / "imagenet", list=str(tmp_path / "mine.txt"))
    assert f"names 2 images that are not there, such as {name(13)!r}, of 3: looked in a flat folder" in message


def test_given_labels(tmp_path: Path) -> None:
    root = make_flat(tmp_path / "val")
    own = tmp_path / "own.csv"
    own.write_text("image_id,label\n" + "".join(f"{image},{label}\n" for image, label in imagenets.labels().items()))
    assert labels(manifest(root, labels=str(own))) == imagenets.labels()
    assert labels(manifest(root, labels=str(make_devkit(tmp_path / "elsewhere")))) == imagenets.labels()


def test_given_labels_must_agree_with_the_folders(tmp_path: Path) -> None:
    root = make_wnid_folders(tmp_path / "val")
    own = make_solution(tmp_path)
    assert labels(manifest(root, labels=str(own))) == imagenets.labels()
    own.write_text(f"image_id,label\n{name(2)},{imagenets.class_of(2) + 1}\n")
    message = refusal(root, labels=str(own))
    assert "and the wnid folders disagree about 12 of 12 images" in message
    assert "leave out data.labels" in message


def test_labels_must_be_there_for_what_is_asked_for(tmp_path: Path) -> None:
    root = make_flat(tmp_path / "val")
    first = manifest(root).images[0].image_id
    own = tmp_path / "own.csv"
    own.write_text(f"image_id,label\n{first},3\n")
    assert manifest(root, labels=str(own), limit=1).take(1)[0].label == 3
    assert f"own.csv do not fit: none for 11 of 12 images, such as {name(2)}" in refusal(root, labels=str(own))
    make_devkit(tmp_path, truth=[1, 2, 3])  # of another set of images
    assert "do not fit: none for 9 of 12 images" in refusal(root)


def test_nothing_of_imagenet(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"")
    message = refusal(tmp_path)
    assert "holds neither ILSVRC2012_img_val.tar, nor ILSVRC2012_val_*.JPEG or wnid folders" in message
    assert "found a.jpg, cats. Give the folder" in message
    assert "other images are data=folder" in message


def test_no_root(tmp_path: Path) -> None:
    assert "data=imagenet needs data.root=PATH, the folder that holds" in refusal(None)
    assert f"data.root={tmp_path / 'none'} does not exist: give the folder" in refusal(tmp_path / "none")


def test_training_images(tmp_path: Path) -> None:
    (tmp_path / "n01440764").mkdir()
    (tmp_path / "n01440764" / "n01440764_10026.JPEG").write_bytes(b"")
    assert "holds no ILSVRC2012_val_*.JPEG but n01440764_10026.JPEG; give" in refusal(tmp_path)
    tar = imagenets.write_tar(tmp_path / "ILSVRC2012_img_train.tar", [("n01440764.tar", b""), ("n01443537.tar", b"")])
    assert "holds no ILSVRC2012_val_*.JPEG but n01440764.tar, n01443537.tar; give" in refusal(tar)


def test_classes_of_another_imagenet(tmp_path: Path) -> None:
    make_wnid_folders(tmp_path)
    (tmp_path / "n99999999").mkdir()
    assert "none of ILSVRC 2012's 1,000 classes: n99999999; move them away" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("makers", "named"),
    [
        ([make_tar, lambda root: make_flat(root / "val")], ["the tar ", "flat images in "]),
        ([make_flat, lambda root: make_flat(root / "val")], ["flat images in ", "/val"]),
        ([make_flat, make_wnid_folders], ["flat images in ", "wnid folders in "]),
        ([make_kaggle, lambda root: make_wnid_folders(root / "val")], ["wnid folders in ", "CLS-LOC/val"]),
    ],
)
def test_two_layouts_in_one_root(tmp_path: Path, makers: list[Callable[[Path], Path]], named: list[str]) -> None:
    for make in makers:
        make(tmp_path)
    message = refusal(tmp_path)
    assert "holds ImageNet more than once: " in message
    assert message.endswith("Give the one you mean as data.root")
    assert all(words in message for words in named)


def test_one_folder_under_two_names_is_one_layout(tmp_path: Path) -> None:
    make_kaggle(tmp_path)
    (tmp_path / "val").symlink_to("ILSVRC/Data/CLS-LOC/val")
    assert len(manifest(tmp_path).images) == 12


def test_an_image_that_is_there_twice(tmp_path: Path) -> None:
    make_wnid_folders(tmp_path)
    (tmp_path / "n15075141" / name(3)).write_bytes(b"")
    assert f"has 1 images twice, such as {name(3)}: remove one of each" in refusal(tmp_path)


def test_a_devkit_of_another_year_beside_the_images(tmp_path: Path) -> None:
    make_tar(tmp_path)
    make_devkit(tmp_path, file_name="ILSVRC2014_devkit.tgz", truth_name="ILSVRC2014_clsloc_validation_ground_truth.txt")
    message = refusal(tmp_path)
    assert "ILSVRC2014_devkit.tgz has no ILSVRC2012_validation_ground_truth.txt, so it is not the devkit" in message
    assert "to go without labels move it away" in message
    make_devkit(tmp_path)
    assert labels(manifest(tmp_path)) == imagenets.labels()
