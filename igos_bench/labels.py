"""Classes of ImageNet's validation images, as 0 to 999 in the order of the wnids, which models use. Needs no torch."""

from __future__ import annotations

import csv
import tarfile
import zlib
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path, PurePosixPath

from .errors import ImageError, UserError, first_line
from .paths import existing
from .source import open_regular
from .tar import refuse_dangerous

SOLUTION = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
HEADERS = (["image_id", "label"], ["ImageId", "PredictionString"])
CLASSES = 1000
LARGEST = 10_000_000
"""Bytes of a file in the devkit that are read: the real ones have below 1 MB, a bomb of zeros has any number."""

REMEDY = f"give {DEVKIT}, {SOLUTION}, or a CSV with the columns image_id,label as data.labels=FILE"
WITHOUT = f"{REMEDY}; to go without labels move it away"


def package_folder(package: str, remedy: str) -> Path:
    """Where a package is installed; it is not imported. Raises UserError where it is not."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {package} is not installed: {remedy}")
    return Path(spec.submodule_search_locations[0])


def imagenet_wnids() -> dict[str, int]:
    """Return ImageNet's 1,000 wnids with their class indices, from timm's list, without the seconds of importing it."""
    path = package_folder("timm", "pip install timm") / "data" / "_info" / "imagenet_synsets.txt"
    return {wnid: index for index, wnid in enumerate(path.read_text(encoding="utf-8").split())}


def find_labels(folders: list[Path]) -> Path | None:
    """The first file of labels in these folders: Kaggle's solution, the devkit, or a devkit of another year.

    The last is returned too, for `read_labels` to refuse: ignored, it would be missed only at the end.
    """
    for folder in folders:
        for pattern in (SOLUTION, DEVKIT, "ILSVRC*devkit*.t*gz"):
            for file in sorted(folder.glob(pattern)):
                return file
    return None


def read_labels(text: str) -> dict[str, int]:
    """Read labels from the devkit of ILSVRC 2012, from Kaggle's `LOC_val_solution.csv` or from a CSV of one's own.

    Args:
        text: The file: a .tar, .tar.gz or .tgz is the devkit, anything else a CSV with the header `image_id,label`
            (label: a wnid or a class index from 0 to 999) or Kaggle's.

    Returns:
        Image id, such as ILSVRC2012_val_00000001.JPEG -> class index.

    Raises:
        UserError: It is not there, cannot be read, is of another year, or has a label that is none.
    """
    path = existing("data.labels", text, REMEDY.removeprefix("give "))
    try:
        open_regular(path).close()  # a fifo would be waited for
        return _read_devkit(path) if path.suffix in (".tar", ".gz", ".tgz") else _read_csv(path)
    except (ImageError, OSError, EOFError, UnicodeDecodeError, csv.Error, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): {REMEDY}") from error


def _read_devkit(path: Path) -> dict[str, int]:
    """Line i of its ground truth is the class of image i, as an ILSVRC2012_ID of meta.mat: neither wnid nor index."""
    content: dict[str, bytes] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            refuse_dangerous(path, member)
            name = PurePosixPath(member.name).name
            if name in (TRUTH, META) and member.size <= LARGEST and (file := tar.extractfile(member)):
                content[name] = file.read()
    for name in (TRUTH, META):
        if name not in content:
            raise UserError(f"{path} has no {name}, so it is not the devkit of ILSVRC 2012: {WITHOUT}")
    classes = _classes_by_id(path, content[META])
    labels = {}
    for number, line in enumerate(content[TRUTH].decode("ascii").split(), start=1):
        if line not in classes:
            raise UserError(f"{path}: line {number} of {TRUTH} is {line!r}, expected 1 to {CLASSES}: {WITHOUT}")
        labels[f"ILSVRC2012_val_{number:08}.JPEG"] = classes[line]
    return labels


def _classes_by_id(path: Path, meta: bytes) -> dict[str, int]:
    """ILSVRC2012_ID, 1 to 1000 as text -> class index. Higher ids are inner nodes of the tree."""
    import numpy as np
    from scipy.io import loadmat  # half a second, which only this needs

    wnids = imagenet_wnids()
    try:
        content = loadmat(BytesIO(meta), squeeze_me=True)  # type: ignore[arg-type] # the stubs know of paths alone
        synsets = np.atleast_1d(content["synsets"])
        found = {int(i): str(wnid) for i, wnid in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
    except Exception as error:  # scipy meets nearly anything in a damaged file
        raise UserError(
            f"{path}: its {META} has no synsets with ILSVRC2012_ID and WNID ({type(error).__name__}: "
            f"{first_line(error)}), so it is damaged or of another year: {WITHOUT}"
        ) from error
    leaves = {i: wnid for i, wnid in found.items() if i <= CLASSES}
    if sorted(leaves) != list(range(1, CLASSES + 1)) or set(leaves.values()) != set(wnids):
        strange = len(set(leaves.values()) - set(wnids))
        raise UserError(
            f"{path}: the {len(leaves)} classes of its {META} are not those of ILSVRC 2012 ({strange} unknown wnids), "
            f"so it is of another year or task: {WITHOUT}"
        )
    return {str(i): wnids[wnid] for i, wnid in leaves.items()}


def _read_csv(path: Path) -> dict[str, int]:
    known: dict[str, int] = {str(index): index for index in range(CLASSES)} | imagenet_wnids()
    labels: dict[str, int] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header not in HEADERS:
            raise UserError(f"{path}: the first line is {','.join(header)[:80]!r}, expected image_id,label: {REMEDY}")
        for row in filter(None, rows):
            where = f"{path}, line {rows.line_num}"
            # Kaggle names the image without its ending and has "wnid x y x y" a box, all boxes of the same class.
            words = row[1].split() if len(row) > 1 else []
            if not words or words[0] not in known:
                raise UserError(
                    f"{where}: the label of {row[0]} is {words[0] if words else ''!r}, neither one of ImageNet's wnids "
                    f"nor a class index from 0 to {CLASSES - 1} (ILSVRC's own ids, 1 to {CLASSES}, are in another "
                    "order: for those give the devkit)"
                )
            image_id = row[0] if row[0].endswith(".JPEG") else f"{row[0]}.JPEG"
            if labels.setdefault(image_id, known[words[0]]) != known[words[0]]:
                raise UserError(f"{where}: {image_id} is there twice, with different labels: keep one of them")
    return labels
