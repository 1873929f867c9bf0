"""Small ImageNets in every layout that people have, for the tests."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from igos_bench.labels import imagenet_wnids

NUMBERS = range(1, 13)


def name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08}.JPEG"


def class_of(number: int) -> int:
    """A class for each image; some have the same."""
    return number * 389 % 7 * 142


def labels() -> dict[str, int | None]:
    return {name(number): class_of(number) for number in NUMBERS}


@cache
def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    image = Image.new("RGB", (40, 30), (number * 20 % 256, 255 - number, number))
    image.paste("white", (8, 6, 24, 22))  # an image of one colour is its own blur
    image.save(file, "JPEG")
    return file.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], **options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for member, content in members:
            add(tar, member, content)
    return path


def add(tar: tarfile.TarFile, member: str, content: bytes) -> None:
    info = tarfile.TarInfo(member)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def make_tar(root: Path, numbers: Iterable[int] = NUMBERS) -> Path:
    """ImageNet's own: a flat tar."""
    return write_tar(root / "ILSVRC2012_img_val.tar", ((name(number), jpeg(number)) for number in numbers))


def make_flat(folder: Path, numbers: Iterable[int] = NUMBERS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / name(number)).write_bytes(jpeg(number))
    return folder


def make_wnid_folders(folder: Path, numbers: Iterable[int] = NUMBERS) -> Path:
    wnids = list(imagenet_wnids())
    for wnid in wnids:
        (folder / wnid).mkdir(parents=True)
    for number in numbers:
        (folder / wnids[class_of(number)] / name(number)).write_bytes(jpeg(number))
    return folder


def make_kaggle(root: Path) -> Path:
    make_flat(root / "ILSVRC" / "Data" / "CLS-LOC" / "val")
    (root / "ILSVRC" / "Data" / "CLS-LOC" / "train" / "n01440764").mkdir(parents=True)
    return make_solution(root).parent


def make_solution(root: Path) -> Path:
    """Kaggle's CSV: no endings, and a class and four numbers a box."""
    wnids = list(imagenet_wnids())
    lines = [f"{name(n)[:-5]},{wnids[class_of(n)]} 1 2 3 4 {wnids[class_of(n)]} 5 6 7 8 " for n in reversed(NUMBERS)]
    path = root / "LOC_val_solution.csv"
    path.write_text("\n".join(["ImageId,PredictionString", *lines, ""]))
    return path


def make_devkit(
    root: Path,
    *,
    file_name: str = "ILSVRC2012_devkit_t12.tar.gz",
    id_field: str = "ILSVRC2012_ID",
    truth_name: str = "ILSVRC2012_validation_ground_truth.txt",
    wnids: list[str] | None = None,
    truth: list[int] | None = None,
) -> Path:
    """The devkit's tar with the fields of the real meta.mat: ids 1 to 1000 are leaves in an order of their own."""
    wnids = wnids or list(imagenet_wnids())
    id_of = list(range(1, len(wnids) + 1))
    random.Random(0).shuffle(id_of)
    fields = [id_field, "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
    rows = sorted((id_of[index], wnid) for index, wnid in enumerate(wnids))
    rows += [(len(wnids) + 1, "n00001740"), (len(wnids) + 2, "n00001930")]  # inner nodes of the tree
    synsets = np.zeros((len(rows), 1), dtype=[(field, object) for field in fields])
    for i, (number, wnid) in enumerate(rows):
        children = np.array([1, 2], dtype=np.uint16) if number > len(wnids) else np.zeros((1, 0))
        synsets[i, 0] = (float(number), wnid, "words", "a gloss", float(children.size), children, 0.0, 1300.0)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    truth = truth or [id_of[class_of(number)] for number in NUMBERS]
    path = root / file_name
    top = path.name.split(".")[0]
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        add(tar, f"{top}/readme.txt", b"a devkit")
        add(tar, f"{top}/data/{truth_name}", "".join(f"{number}\n" for number in truth).encode())
        add(tar, f"{top}/data/meta.mat", meta.getvalue())
    return path


def make_full_size(root: Path) -> Path:
    """A tar with as many members as the real one, all the same tiny JPEG; written without tarfile, in a second."""
    path = root / "ILSVRC2012_img_val.tar"
    content = jpeg(1)
    padding = bytes(-len(content) % 512)
    with path.open("wb") as file:
        for number in range(1, 50_001):
            info = tarfile.TarInfo(name(number))
            info.size = len(content)
            file.write(info.tobuf(tarfile.USTAR_FORMAT) + content + padding)
        file.write(bytes(10_240))
    return path
