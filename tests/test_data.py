"""Which images, in which order, with which labels, and what is said where there are none."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from igos_bench.config import DataConfig
from igos_bench.data import EXTENSIONS, Manifest, read_manifest, read_once
from igos_bench.errors import ImageError, UserError


def folder(root: Path, *names: str, **options: Any) -> Manifest:
    """The manifest of a folder after making these files in it; their content does not matter here."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return read_manifest(DataConfig(name="folder", layout="folder", root=str(root), **options))


def ids(manifest: Manifest) -> list[str]:
    return [image.image_id for image in manifest.images]


def labels(manifest: Manifest) -> dict[str, int | None]:
    return {image.image_id: image.label for image in manifest.images}


def test_sample() -> None:
    manifest = read_manifest(DataConfig())
    assert len(manifest.images) == 20
    assert labels(manifest)["imagenet_00_243"] == 243
    assert all(image.path.is_file() for image in manifest.images)
    with manifest.images[0].open() as file:
        assert file.read(2) == b"\xff\xd8"
    # The order is part of every published number on the sample.
    assert ids(manifest)[:3] == ["imagenet_13_471", "imagenet_03_990", "imagenet_00_243"]


def test_listing_needs_neither_torch_nor_foolbox() -> None:
    code = (
        "import sys; from igos_bench.config import DataConfig; from igos_bench.data import read_manifest;"
        "import igos_bench.labels; igos_bench.labels.imagenet_wnids(); read_manifest(DataConfig());"
        "sys.exit(bool({'torch', 'foolbox', 'timm', 'PIL'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent, timeout=60)


def test_read_once_reads_each_data_set_once_and_keeps_no_mistake(tmp_path: Path) -> None:
    read = read_once()
    config = DataConfig(name="mine", layout="folder", root=str(tmp_path))
    with pytest.raises(UserError, match="holds no images"):
        read(config)
    (tmp_path / "a.png").touch()
    first = read(config)
    assert first == read_manifest(config)
    (tmp_path / "b.png").touch()
    assert read(replace(config)) is first, "the cells of a sweep share it"
    assert len(read(replace(config, seed=1)).images) == 2, "another data set"
    assert len(read_once()(config).images) == 2, "another sweep looks again"


def test_sample_without_foolbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("igos_bench.labels.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"foolbox is not installed: pip install 'igos-bench\[sample\]'"):
        read_manifest(DataConfig())


def test_folder_lists_every_name_that_ends_like_an_image(tmp_path: Path) -> None:
    wanted = [f"a{ending}" for ending in EXTENSIONS] + ["B.JPG", "deep/er/c.Png", "space and, comma.png"]
    with pytest.warns(UserWarning, match=r"having no image's ending: 1 \.txt, 1 without an ending$"):
        manifest = folder(tmp_path, *wanted, "notes.txt", "jpg", ".hidden.jpg", ".git/d.jpg", "deep/.e.png")
    assert sorted(ids(manifest)) == sorted(wanted)
    assert manifest.name == "folder"


def test_order_is_seeded_and_independent_of_the_file_system(tmp_path: Path) -> None:
    names = [f"{i:02}.png" for i in range(30)]
    first, second = folder(tmp_path / "one", *names), folder(tmp_path / "two", *reversed(names))
    assert ids(first) == ids(second) != names
    assert first.sha256 == second.sha256
    other = folder(tmp_path / "one", seed=1)
    assert sorted(ids(other)) == names
    assert ids(other) != ids(first)
    assert other.sha256 != first.sha256


def test_a_smaller_limit_is_a_prefix(tmp_path: Path) -> None:
    manifest = folder(tmp_path, *(f"{i}.png" for i in range(9)), limit=4)
    assert len(manifest.images) == 9
    assert manifest.take(4) == manifest.take(7)[:4] == manifest.images[:4]
    assert manifest.take(None) == manifest.take(1000) == manifest.images
    assert manifest.sha256 == folder(tmp_path, limit=1000).sha256


def test_hash_tells_folders_apart(tmp_path: Path) -> None:
    hashes = {folder(tmp_path, "a.png", "b.png").sha256}
    (tmp_path / "a.png").write_bytes(b"another size")
    hashes.add(folder(tmp_path).sha256)
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    hashes.add(folder(tmp_path).sha256)
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["n01440764/x.png", "n15075141/deep/y.png"], [0, 999]),
        (["007/x.png", "130/y.png"], [7, 130]),
        (["cat/x.png", "dog/y.png"], [None, None]),
        (["n01440764/x.png", "n99999999/y.png"], [None, None]),
        (["n01440764/x.png", "3/y.png"], [None, None]),
        (["3/x.png", "y.png"], [None, None]),
        (["٣/x.png", "4/y.png"], [None, None]),  # an Arabic digit, which int() would read
    ],
)
def test_labels(tmp_path: Path, names: list[str], expected: list[int | None]) -> None:
    assert labels(folder(tmp_path, *names)) == dict(zip(names, expected, strict=True))


def test_odd_names_become_printable_unique_ids(tmp_path: Path) -> None:
    names = [b"\xff.png", b"\\udcff.png", b"\\xff.png", "ÿ.png".encode(), b"tab\tnew\nline.png"]
    for name in names:
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(b"")
    manifest = folder(tmp_path)
    assert set(ids(manifest)) == {
        r"\udcff.png", r"\\udcff.png", r"\\xff.png", "ÿ.png", r"tab\tnew\nline.png",
    }  # fmt: skip
    assert all(image.path.exists() for image in manifest.images)


@pytest.mark.filterwarnings("ignore:left out of data.root")
def test_what_is_no_regular_file_is_listed_and_refused_when_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "within.png").write_bytes(b"")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "loop").symlink_to("loop")
    reasons = {}
    for image in folder(tmp_path).images:
        with pytest.raises(ImageError) as raised:
            image.open()
        reasons[image.image_id] = str(raised.value)
    assert reasons == {
        "fifo.png": "not a regular file but a fifo, socket or device",
        "folder.png": "not a regular file but a folder",
        "dangling.png": "a link to nothing",
        "loop.png": "cannot be opened: Too many levels of symbolic links",
    }


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    folder(tmp_path / "elsewhere", "x.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
    assert ids(folder(tmp_path / "root")) == ["linked/x.png"]


def test_list_takes_images_in_its_order(tmp_path: Path) -> None:
    own = tmp_path / "mine.txt"
    own.write_text("\ufeffb.png\r\n\na.png\n", encoding="utf-8")
    manifest = folder(tmp_path / "images", "a.png", "b.png", "c.png", list=str(own))
    assert ids(manifest) == ["b.png", "a.png"]
    assert [image.image_id for image in manifest.take(1)] == ["b.png"]
    assert manifest.listing(None) == "b.png\na.png\n"
    own.write_text("a.png\nb.png\n")
    hashes = {manifest.sha256, folder(tmp_path / "images").sha256, folder(tmp_path / "images", list=str(own)).sha256}
    assert len(hashes) == 3


@pytest.mark.timeout(20)
@pytest.mark.parametrize("key", ["list", "labels"])
@pytest.mark.parametrize("name", ["fifo", "fifo.tar"])
def test_a_fifo_in_the_place_of_a_text_is_not_waited_for(tmp_path: Path, key: str, name: str) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").touch()
    with pytest.raises(UserError, match="cannot be read.*not a regular file but a fifo"):
        read_manifest(DataConfig(layout="imagenet", root=str(tmp_path / "val"), **{key: str(tmp_path / name)}))


def test_listing_gives_the_same_images_back(tmp_path: Path) -> None:
    manifest = folder(tmp_path / "images", *(f"{i}.png" for i in range(9)))
    own = tmp_path / "mine.txt"
    own.write_text(manifest.listing(4), encoding="utf-8")
    assert folder(tmp_path / "images", list=str(own)).images == manifest.take(4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a.png\nd.png\n e.png\n", "names 2 images that are not there, such as 'd.png', of 3: looked in all images"),
        (b"a.png\nd.png\n", "ids here look like a.png"),
        (b"a.png\na.png\n", "names 'a.png' 2 times: name every image once"),
        (b"\n\n", "is empty: write one image id a line"),
        (b"\xff\xfe", "cannot be read as a text file with one image id a line"),
        (None, "does not exist: give a file with one image id a line"),
    ],
)
def test_bad_lists(tmp_path: Path, content: bytes | None, message: str) -> None:
    own = tmp_path / "mine.txt"
    if content is not None:
        own.write_bytes(content)
    with pytest.raises(UserError) as raised:
        folder(tmp_path / "images", "a.png", list=str(own))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "tar"}, "unknown data.layout 'tar'; choices: sample, folder, imagenet"),
        ({"limit": 0}, "data.limit=0 takes no images: give 1 or more, or null for all"),
        ({"root": None}, "data=mine needs data.root=FOLDER"),
        ({"root": ""}, "data=mine needs data.root=FOLDER"),
        ({"root": "{tmp}/none"}, "data.root={tmp}/none does not exist: give the folder"),
        ({"root": "~nobody-of-this-name/x"}, "data.root=~nobody-of-this-name/x does not exist"),
        ({"root": "{tmp}/notes.txt"}, "data.root={tmp}/notes.txt is a file, not a folder: give the folder"),
        ({"root": "{tmp}/empty"}, "holds no images: looked at all depths for .jpg .jpeg .png .bmp"),
        ({"root": "{tmp}/empty"}, "found no files at all"),
        ({"root": "{tmp}"}, "found 2 .tar, 1 .txt, 1 without an ending"),
    ],
)
def test_errors(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    for name in ("notes.txt", "a.tar", "deep/b.TAR", "LICENSE"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    known = {key: value.format(tmp=tmp_path) if isinstance(value, str) else value for key, value in options.items()}
    config: dict[str, Any] = {"name": "mine", "layout": "folder", "root": str(tmp_path)} | known
    with pytest.raises(UserError) as raised:
        read_manifest(DataConfig(**config))
    assert message.format(tmp=tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)
