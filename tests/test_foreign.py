"""Maps that were made elsewhere: scored like our own, checked before anything is spent.

Through `cli.main` in this process: torch is loaded once, and a command takes a quarter of a second.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from igos_bench import cli
from igos_bench.errors import UserError
from igos_bench.foreign import check_maps, read_map
from igos_bench.overrides import compose_config
from igos_bench.prepare import prepare
from igos_bench.runner import execute

IDS = ("a.png", "b.png", "deep/er/c.png")
WORDS = (
    "data=folder", "data.root=images", "data.workers=1", "model=timm", "model.architecture=mobilenetv3_small_050",
    "model.weights=null", "protocol.n_steps=8", "chunk_size=2", "device=cpu", "results_dir=out",
)  # fmt: skip
SCORE = ("score", "maps=maps", "name=theirs", *WORDS)

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Main:
    """Runs a command line in a folder with three images; returns its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # to put it back afterwards
    noise = np.random.default_rng(0)
    for image_id in IDS:
        path = Path("images", image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["igos-bench", *words])
        capfd.readouterr()
        return cli.main(), *capfd.readouterr()

    return run


def write(folder: Path, maps: dict[str, np.ndarray]) -> None:
    for image_id, saliency_map in maps.items():
        path = folder / f"{image_id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, saliency_map)


def noise_maps(resolution: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {image_id: generator.normal(size=(resolution, resolution)) for image_id in IDS}


def runs(method: str) -> list[Path]:
    return sorted(Path("out/runs/mobilenetv3_small_050/folder", method).glob("*/*"))


def stored_maps(run: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for path in sorted(run.glob("maps/*.npz")):
        with np.load(path) as arrays:
            found |= dict(zip(map(str, arrays["image_id"]), arrays["saliency_map"], strict=True))
    return found


def rows(run: Path) -> dict[str, dict[str, str]]:
    (path,) = run.glob("paper-*/records.csv")
    with path.open(newline="") as file:
        return {row["image_id"]: row for row in csv.DictReader(file)}


def test_our_own_maps_exported_get_the_very_same_areas(main: Main, tmp_path: Path) -> None:
    code, _, errors = main("run", "method=grad_cam", "resolution=28", *WORDS)
    assert code == 0, errors
    (ours,) = runs("grad_cam")
    # (1,r,r) as stored, (r,r), and another type that holds a float32 exactly.
    forms: list[Callable[[np.ndarray], np.ndarray]] = [lambda a: a, lambda a: a[0], lambda a: a.astype(">f8")]
    maps = stored_maps(ours)
    write(tmp_path / "maps", {i: form(maps[i]) for i, form in zip(IDS, forms, strict=True)})

    code, output, errors = main(*SCORE)
    assert code == 0, errors
    assert output.startswith("score: method=theirs resolution=28 model=mobilenetv3_small_050 data=folder (3 images)")
    assert f"maps={tmp_path / 'maps'}" in output
    assert "nan" not in output and "passes" not in output and "explaining" not in output, output
    (theirs,) = runs("theirs")
    expected, found = rows(ours), rows(theirs)
    assert set(found) == set(IDS)
    empty = {"explain_seconds": "", "forwards": "", "backwards": ""}
    for image_id in IDS:
        assert expected[image_id]["score_seconds"] and found[image_id].pop("score_seconds")
        expected[image_id].pop("score_seconds")
        assert found[image_id] == expected[image_id] | empty
    again = stored_maps(theirs)
    assert all(np.array_equal(again[i], maps[i]) and again[i].dtype == np.float32 for i in IDS)

    provenance = json.loads((theirs / "run.json").read_text())
    assert provenance["maps"]["folder"] == str(tmp_path / "maps")
    assert len(provenance["maps"]["sha256"]) == 64
    assert (provenance["method"], provenance["resolution"], provenance["config"]["method"]) == (
        "theirs", 28, {"name": "theirs"},
    )  # fmt: skip
    assert (provenance["requested"], provenance["done"]) == (3, 3)

    code, output, errors = main("table", "results_dir=out")
    assert code == 0, errors
    with Path("out/table.csv").open(newline="") as file:
        table = {row["method"]: row for row in csv.DictReader(file)}
    assert (table["theirs"]["resolution"], table["theirs"]["n"], table["theirs"]["requested"]) == ("28", "3", "3")
    assert table["theirs"]["deletion_auc"] == table["grad_cam"]["deletion_auc"]
    assert table["theirs"]["insertion_auc"] == table["grad_cam"]["insertion_auc"]
    assert table["theirs"]["paper_deletion"] == "" and "theirs" in output


def test_other_maps_are_another_run_with_other_areas(main: Main, tmp_path: Path) -> None:
    maps = noise_maps(28)
    write(tmp_path / "maps", maps)
    assert main(*SCORE)[0] == 0
    (first,) = runs("theirs")
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}

    write(tmp_path / "maps", {IDS[2]: -maps[IDS[2]]})
    assert main(*SCORE)[0] == 0
    (second,) = set(runs("theirs")) - {first}
    old, new = rows(first), rows(second)
    same = [old[i]["deletion_auc"] == new[i]["deletion_auc"] for i in IDS]
    assert same == [True, True, False], "the areas must follow the maps, each image its own"
    assert {path: path.read_bytes() for path in before} == before

    write(tmp_path / "elsewhere", maps)  # the same maps in another folder are the same run
    code, output, _ = main("score", "maps=elsewhere", "name=theirs", *WORDS)
    assert code == 0 and "resumed 3/3" in output
    assert main("score", "maps=elsewhere", "name=others", *WORDS)[0] == 0
    assert len(runs("theirs")) == 2 and len(runs("others")) == 1


def test_coarse_maps_of_whole_numbers_under_another_protocol(main: Main, tmp_path: Path) -> None:
    maps = {i: a.argsort(axis=None).reshape(7, 7).astype(np.uint8) for i, a in noise_maps(7).items()}
    write(tmp_path / "maps", maps)
    assert main(*SCORE)[0] == 0
    code, output, errors = main(*SCORE, "protocol=rise", "protocol.n_steps=8")
    assert code == 0, errors
    assert "resolution=7 " in output and "protocol=rise" in output
    (run,) = runs("theirs")
    assert run.parent.name == "7"
    assert len(list(run.glob("*/records.csv"))) == 2, "both protocols, one set of maps"
    assert all(row["status"] == "ok" and row["ties"] == "0.0" for row in rows(run).values())
    assert {i: a.tolist() for i, a in stored_maps(run).items()} == {i: [a.tolist()] for i, a in maps.items()}


def test_a_torn_chunk_is_scored_again_from_the_folder(main: Main, tmp_path: Path) -> None:
    write(tmp_path / "maps", noise_maps(14))
    assert main(*SCORE)[0] == 0
    (run,) = runs("theirs")
    whole = {path: path.read_bytes() for path in run.rglob("*.npz")}
    torn = run / "maps" / "000001.npz"
    torn.write_bytes(whole[torn][:50])
    code, output, errors = main(*SCORE)
    assert code == 0 and "resumed 2/3" in output, errors
    assert {path: path.read_bytes() for path in run.rglob("*.npz")} == whole


def test_an_image_that_does_not_decode_costs_itself_alone(main: Main, tmp_path: Path) -> None:
    (tmp_path / "images" / "b.png").write_bytes(b"no image at all")
    write(tmp_path / "maps", noise_maps(7))
    code, _, errors = main(*SCORE)
    assert code == 3 and "failed    b.png: not an image" in errors
    (run,) = runs("theirs")
    assert {i: row["status"] for i, row in rows(run).items()} == dict(zip(IDS, ("ok", "failed", "ok"), strict=True))


def test_a_map_that_changes_between_check_and_score_stops_the_run(main: Main, tmp_path: Path) -> None:
    write(tmp_path / "maps", noise_maps(7))
    run = prepare(compose_config(["maps=maps", "name=theirs", *WORDS]))
    write(tmp_path / "maps", noise_maps(7, seed=1))
    with pytest.raises(UserError, match="was changed while it was being scored: start the same command again"):
        execute(run, lambda _count, _rows: None, explain=False)


# Mistakes


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, np.zeros((7, 7)))
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def holed(value: float) -> bytes:
    array = np.zeros((7, 7))
    array[3, 4] = value
    return npy(array)


BAD: dict[str, tuple[bytes, str]] = {
    "no npy": (b"0.25 0.5 0.125\n", "cannot be read as a .npy (the magic string is not correct"),
    "empty": (b"", "cannot be read as a .npy (EOF"),
    "npz": (npz(), "cannot be read as a .npy (the magic string is not correct"),
    "pickle": (pickle.dumps(np.zeros((7, 7))), "cannot be read as a .npy (the magic string is not correct"),
    "objects": (npy(np.full((7, 7), None)), "cannot be read as a .npy (Object arrays cannot be loaded"),
    "torn": (npy(np.zeros((7, 7)))[:-9], "cannot be read as a .npy ("),
    "complex": (npy(np.zeros((7, 7), complex)), "holds complex128, expected real numbers: write it with numpy.save"),
    "text": (npy(np.full((7, 7), "a")), "holds <U1, expected real numbers"),
    "scalar": (npy(1.0), "has the shape (), expected (r, r) or (1, r, r)"),
    "oblong": (npy(np.zeros((7, 8))), "has the shape (7, 8), expected (r, r) or (1, r, r)"),
    "colours": (npy(np.zeros((3, 7, 7))), "has the shape (3, 7, 7), expected (r, r) or (1, r, r)"),
    "nothing": (npy(np.zeros((0, 0))), "has the shape (0, 0), expected (r, r) or (1, r, r)"),
    "nan": (holed(np.nan), "holds 1 values of 49 that are NaN or infinite as float32"),
    "infinity": (holed(-np.inf), "holds 1 values of 49 that are NaN or infinite as float32"),
    "overflow": (holed(1e39), "holds 1 values of 49 that are NaN or infinite as float32"),
    "other resolution": (npy(np.zeros((14, 14))), "is 14 x 14"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_map_is_named_and_nothing_is_written(main: Main, tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path / "maps", noise_maps(7))
    path = tmp_path / "maps" / "deep" / "er" / "c.png.npy"
    path.write_bytes(content)
    code, output, errors = main(*SCORE)
    assert code == 2 and len(errors.splitlines()) == 1, errors
    assert str(path) in errors and message in errors, errors
    assert not Path("out").exists() and not output


def test_what_is_no_file_is_no_map(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no map: not a regular file but a folder; write it with numpy.save"):
        read_map(tmp_path)


def test_every_real_type_is_read_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    for code in "?bBhHiIlLefdg":
        np.save(path, np.asfortranarray(np.array([[0, 1], [1, 0]], dtype=code)))
        found = read_map(path)
        assert found.dtype == np.float32 and found.tolist() == [[[0, 1], [1, 0]]], code


def test_the_digest_is_of_ids_and_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    maps = noise_maps(7)
    write(tmp_path / "maps", maps)
    whole = check_maps("maps", "theirs", IDS).sha256
    assert check_maps("maps", "theirs", IDS).sha256 == whole
    assert check_maps("maps", "theirs", IDS[:2]).sha256 != whole
    write(tmp_path / "swapped", {IDS[0]: maps[IDS[1]], IDS[1]: maps[IDS[0]], IDS[2]: maps[IDS[2]]})
    assert check_maps("swapped", "theirs", IDS).sha256 != whole
    write(tmp_path / "typed", {i: a.astype(np.float32)[None] for i, a in maps.items()})
    assert check_maps("typed", "theirs", IDS).sha256 == whole, "what is scored is the same"
    renamed = [f"new/{i}" for i in IDS]
    write(tmp_path / "renamed", dict(zip(renamed, maps.values(), strict=True)))
    assert check_maps("renamed", "theirs", renamed).sha256 != whole, "the same values of other images"
    touched = maps[IDS[1]].copy()
    touched[6, 6] += 1e-3
    write(tmp_path / "typed", {IDS[1]: touched})
    assert check_maps("typed", "theirs", IDS).sha256 != whole


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["run", "maps=maps", "name=theirs"],
            ["`run` does not look at maps", "igos-bench score maps=FOLDER name=NAME"],
        ),
        (["maps=maps", "name=theirs"], ["`run` does not look at maps"]),
        (["score", "maps=maps"], ["maps=maps needs name=NAME"]),
        (["score", "name=theirs"], ["say where they are with maps=FOLDER"]),
        (["score", "maps=maps", "name=rise"], ["name=rise is a method of igos-bench", "choose another than"]),
        (["score", "maps=maps", "name=their/s"], ["name='their/s' becomes the name of a folder", "letters, digits"]),
        (["score", "maps=maps", "name=.."], ["name='..' becomes the name of a folder"]),
        (["score", "maps=maps", "name='a b'"], ["name='a b' becomes the name of a folder"]),
        (["score", "maps=nowhere", "name=theirs"], ["maps=nowhere does not exist: give the folder"]),
        (["score", "maps=images/a.png", "name=theirs"], ["maps=images/a.png is a file, not a folder"]),
        (
            ["score", "maps=images", "name=theirs"],
            ["no map for 3 of 3 images, such as ", ".png.npy): add them", "data.list=FILE", "data.limit=N"],
        ),
        (["score", "maps=maps", "name=theirs", "method=igos"], ["method=igos: maps that", "leave method=igos out"]),
        (["score", "maps=maps", "name=theirs", "resolution=14"], ["leave resolution=14 out"]),
        (["score", "maps=bad", "name=theirs"], ["b.png.npy holds 1 values of 49 that are NaN or infinite"]),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    main: Main, tmp_path: Path, words: list[str], parts: list[str]
) -> None:
    write(tmp_path / "maps", noise_maps(7))
    write(tmp_path / "bad", noise_maps(7))
    (tmp_path / "bad" / "b.png.npy").write_bytes(holed(np.nan))
    code, output, errors = main(*words, *WORDS)
    assert code == 2, (output, errors)
    assert len(errors.splitlines()) == 1 and errors.startswith("igos-bench: "), errors
    assert all(part in errors for part in parts), errors
    assert not Path("out").exists() and not output


def test_fewer_images_need_fewer_maps(main: Main, tmp_path: Path) -> None:
    write(tmp_path / "maps", {i: a for i, a in noise_maps(7).items() if i != "b.png"})
    code, _, errors = main(*SCORE)
    assert code == 2 and f"no map for 1 of 3 images, such as b.png (looked for {tmp_path}/maps/b.png.npy)" in errors
    (tmp_path / "there.txt").write_text("deep/er/c.png\na.png\n")
    code, _, errors = main(*SCORE, "data.list=there.txt")
    assert code == 0, errors
    assert list(rows(runs("theirs")[0])) == ["deep/er/c.png", "a.png"]


def test_a_finer_map_is_averaged_down_to_the_pixels(tmp_path: Path) -> None:
    fine = np.random.default_rng(0).normal(size=(448, 448))
    np.save(tmp_path / "fine.npy", fine)
    found = read_map(tmp_path / "fine.npy")
    assert found.shape == (1, 224, 224) and found.dtype == np.float32
    assert np.allclose(found[0], fine.reshape(224, 2, 224, 2).mean((1, 3)), atol=1e-6)
    np.save(tmp_path / "odd.npy", np.full((256, 256), 3.0))
    assert np.allclose(read_map(tmp_path / "odd.npy"), 3)
