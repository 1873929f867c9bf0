"""`igos-bench report`, as far as it goes without a browser; test_report_browser.py looks at the page."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
import warnings
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from report_folders import HOSTILE, leave_maps, leave_photographs
from result_folders import leave_run

from igos_bench import cli
from igos_bench.config import ProtocolConfig
from igos_bench.errors import UserError
from igos_bench.lease import Leases
from igos_bench.metrics import Protocol, rank
from igos_bench.packing import pack_range
from igos_bench.perturb import upsample
from igos_bench.report import write_report
from igos_bench.report.page import TEMPLATES, embedded
from igos_bench.report.pictures import cell_content, thinned
from igos_bench.results import RunDirectory
from igos_bench.stored import Curve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of two methods on the hostile images and some others, which lie beside them in images/."""
    leave_photographs(tmp_path / "images", [*HOSTILE, *(f"3/plain{i}.png" for i in range(4))])
    leave_maps(tmp_path / "results", tmp_path / "images", "igos", 28, failed=[1])
    leave_maps(tmp_path / "results", tmp_path / "images", "mask", 28)
    return tmp_path / "results"


def data_of(page: Path) -> dict[str, Any]:
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def side_file(results_dir: Path, number: int) -> dict[str, Any]:
    text = (results_dir / "report_files" / f"{number}.js").read_text()
    start = f'sideFile("{data_of(results_dir / "report.html")["build"]}",{number},'
    assert text.startswith(start) and text.endswith(")\n")
    found: dict[str, Any] = json.loads(text.removeprefix(start).removesuffix(")\n"))
    return found


@pytest.mark.parametrize(
    ("resolution", "ranking", "n_steps", "parts"),
    [
        (14, "elements", 200, 1),
        (28, "elements", 200, 1),
        (7, "pixels", 200, 1),
        (28, "elements", 20, 12),
        (3, "elements", 4, 63),
    ],
)
@pytest.mark.parametrize("has_curves", [True, False])
def test_the_steps_are_those_of_the_metric(
    resolution: int, ranking: str, n_steps: int, parts: int, has_curves: bool
) -> None:
    """An element belongs to the picture of step k exactly where its place in the ranking is among the first hits[k]."""
    random = torch.Generator().manual_seed(0)
    saliency_map = torch.randn(1, 1, resolution, resolution, generator=random).clamp(min=0)  # with a plateau
    ranked = saliency_map if ranking == "elements" else upsample(saliency_map, 224)
    config = ProtocolConfig(n_steps=n_steps, ranking=ranking)
    hits = Protocol.from_config(config).hits(ranked.numel())
    curve = Curve(hits.numpy(), *np.linspace(0, 1, 2 * len(hits), dtype=np.float32).reshape(2, -1))
    content = cell_content(saliency_map[0, 0].numpy(), curve if has_curves else None, asdict(config))

    levels = np.frombuffer(zlib.decompress(base64.b64decode(content["levels"])), np.uint8)
    assert content["side"] == ranked.shape[-1] and content["levels_a_step"] == parts
    for step in range(len(hits)):
        assert np.array_equal(levels <= step * parts, rank(ranked)[0].numpy() < hits[step].item())
    assert len(set(levels)) == min(ranked.numel(), len(content["heat"])), "as fine as a byte can have it"
    values = ranked.flatten().numpy()
    heat = {level: 1000 * values[levels == level].mean() / values.max() for level in set(levels)}  # the least is 0
    assert {level: content["heat"][level - 1] for level in heat} == pytest.approx(heat, abs=0.6)
    means = [heat[level] for level in sorted(heat)]
    assert means[0] > 700 and means == sorted(means, reverse=True)
    assert content["curves"][1][-1] == 10_000 if has_curves else content["lacks"] == ["curves"]


def test_without_curves_and_protocol_a_map_is_shown_all_the_same() -> None:
    saliency_map = np.arange(28 * 28, dtype=np.float32).reshape(28, 28)
    content = cell_content(saliency_map, None, {})
    levels = np.frombuffer(zlib.decompress(base64.b64decode(content["levels"])), np.uint8)
    assert len(set(levels)) == 255 and (np.diff(levels[::-1].astype(int)) >= 0).all()


def test_curves_of_another_map_give_no_picture() -> None:
    curve = Curve(np.arange(5), np.zeros(5), np.zeros(5))
    found = cell_content(np.zeros((14, 14), np.float32), curve, {})
    assert found.keys() == {"curves", "lacks"} and found["lacks"] == ["match"]


def test_a_longer_curve_is_thinned_to_what_a_byte_holds() -> None:
    def shown(points: int) -> np.ndarray:
        curve = thinned(Curve(np.arange(points), np.arange(points) + 0.25, np.arange(points) + 0.5))
        assert np.array_equal(curve.deletion, curve.hits + 0.25) and np.array_equal(curve.insertion, curve.hits + 0.5)
        return curve.hits

    assert np.array_equal(shown(201), np.arange(201))
    assert np.array_equal(shown(256), np.arange(256))
    assert (len(shown(1001)), shown(1001)[0], shown(1001)[-1]) == (256, 0, 1000)
    assert set(np.diff(shown(1001))) == {3, 4}


def test_the_page(folder: Path) -> None:
    page, missing = write_report(folder)
    assert missing == []
    data = data_of(page)
    assert len(data["ids"]) == 8 and set(HOSTILE) < set(data["ids"])
    assert [cell["title"] for cell in data["cells"]] == ["I-GOS", "Mask"]
    assert [len(cell["images"]) for cell in data["cells"]] == [7, 8]
    assert data["groups"] == ["toy, images, protocol paper"]
    assert data["classes"] == {}, "nobody knows what the classes of a toy are"

    mask = data["cells"][1]
    for number in mask["images"]:
        content = side_file(folder, number)
        assert content["photographs"]["plain"].keys() == {"photograph", "baselines"}
        assert content["cells"]["1"]["side"] == 28
        deletion, insertion = content["cells"]["1"]["curves"]
        place = mask["images"].index(number)
        shares = np.array(mask["hits"]) / mask["hits"][-1]
        assert np.trapezoid(deletion, shares) / 1e4 == pytest.approx(mask["deletion"][place], abs=1e-4)
        assert np.trapezoid(insertion, shares) / 1e4 == pytest.approx(mask["insertion"][place], abs=1e-4)


def test_a_build_is_what_the_numbers_in_its_files_mean(folder: Path) -> None:
    build = data_of(write_report(folder)[0])["build"]
    assert data_of(write_report(folder)[0])["build"] == build, "a page left open over the same report stays good"
    leave_maps(folder, folder.parent / "images", "excitation_bp", 14)  # which makes Mask the third cell
    others = [data_of(write_report(folder)[0])["build"]]
    leave_photographs(folder.parent / "images", ["3/more.png"])
    leave_maps(folder, folder.parent / "images", "rise", 14)
    others.append(data_of(write_report(folder)[0])["build"])
    assert len({build, *others}) == 3


def test_nothing_that_a_user_wrote_is_markup(folder: Path) -> None:
    leave_maps(folder, folder.parent / "images", "igos", 14, parameters={"note": "</script><b>bold</b>\u2028"})
    leave_maps(folder, folder.parent / "images", "igos", 14, parameters={"note": "another"})
    page, _ = write_report(folder)
    text = page.read_text()
    assert text.count("<script") == text.count("</script>") == 2  # the numbers and the script
    for markup in ("<b>", "<i>", "<img"):
        assert markup not in text
    assert "\u2028" not in "".join(re.findall(r"<script.*?</script>", text, re.DOTALL))  # it would end a line there
    assert "&lt;/script&gt;&lt;img src=x onerror=window.hit=3&gt; &amp; so on" in text  # a failure's reason
    for path in (folder / "report_files").glob("*.js"):
        assert re.fullmatch(r'sideFile\("[0-9a-f]{16}",\d+,[\w"{}\[\]:,+/=.-]*\)\n', path.read_text()), (
            "numbers and base64 alone"
        )


def test_embedded_text_ends_no_script() -> None:
    text = embedded({"a": "</script><!-- & \u2028 \u2029 \"'"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!-- & \u2028 \u2029 \"'"}


def test_nothing_of_the_page_lies_elsewhere(folder: Path) -> None:
    page, _ = write_report(folder)
    addresses = set(re.findall(r"\w+://[^\s\"'<>)]*", page.read_text()))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a namespace, which nobody fetches


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results_dir=.*nowhere is no folder: say results_dir=FOLDER"):
        write_report(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_without_runs_says_so(tmp_path: Path) -> None:
    page, missing = write_report(tmp_path)
    assert missing == []
    assert f"There are no runs under {tmp_path}/runs" in page.read_text()
    assert data_of(page)["cells"] == []


def test_half_finished_cells_are_marked(folder: Path) -> None:
    leave_maps(folder, folder.parent / "images", "rise", 14, done=4)
    leave_run(folder, "grad_cam", 14, [])  # not one of no images
    page, missing = write_report(folder)
    assert missing[1:] == ["RISE at 14 has 4 of 8 images."], "of I-GOS one failed, which is said elsewhere"
    text = page.read_text()
    assert f"<li>{missing[1]}</li>" in text
    assert "4 of 8 !" in text and "0 of 0 !" in text
    marked = [cell["title"] + cell["signs"] for cell in data_of(page)["cells"]]
    assert marked == ["Grad-CAM !", "I-GOS !", "Mask", "RISE !"]
    sections = dict(re.findall(r'<section id="(\w+)".*?>(.*?)</section>', text, re.DOTALL))
    for name, rows in (("differences", ["I-GOS !"] * 2), ("time", marked), ("extremes", [])):
        assert re.findall('<th scope="row">(.*?)</th>', sections[name]) == rows
        assert "A cell marked with ! lacks images." in sections[name], "those of the last are written by its script"
    # Not in the column of winners, where chance may have it.
    assert re.findall('</th>\\s*<td class="text">(.*?)</td>', sections["differences"]) == ["Mask"] * 2


PRETRAINED = {"library": "torchvision", "architecture": "resnet50", "weights": "pretrained"}


def test_classes_are_named_cell_by_cell(folder: Path) -> None:
    leave_maps(folder, folder.parent / "images", "igos", 28, model="resnet50", network=PRETRAINED)
    leave_maps(folder, folder.parent / "images", "rise", 14, network={**PRETRAINED, "weights": None})
    data = data_of(write_report(folder)[0])
    cells = [(data["groups"][cell["group"]].split(",")[0], cell["has_class_names"]) for cell in data["cells"]]
    assert cells == [("resnet50", True), ("toy", False), ("toy", False), ("toy", False)]
    assert data["classes"] == {"3": "tiger shark", "7": "cock"}, "those that occur: 3/ and 7/"


def test_a_half_finished_cell_of_several_groups_says_which_it_is(folder: Path) -> None:
    images = folder.parent / "images"
    for model in ("alexnet", "vgg19"):
        leave_maps(folder, images, "igos", 28, model=model, done=4)
    leave_maps(folder, images, "igos", 28, model="vgg19", done=4, parameters={"note": "b"})
    leave_maps(folder, images, "igos", 28, model="vgg19", data_name="others")
    lost = leave_maps(folder, images, "mask", 28, model="vgg19")
    (lost.path / "maps" / "000000.npz").unlink()
    _, missing = write_report(folder)
    assert missing[:3] == [
        "I-GOS at 28 on alexnet, images, under paper has 4 of 8 images.",
        "I-GOS at 28 on vgg19, images, under paper has 4 of 8 images.",
        "I-GOS note=b at 28 on vgg19, images, under paper has 4 of 8 images.",
    ]
    assert missing[3].startswith("Mask at 28 on vgg19, images, under paper: the maps of 4 of 8 images are missing")


def test_missing_maps_and_curves_are_said(folder: Path) -> None:
    igos, mask = (next(folder.glob(f"runs/*/*/{method}/28/*")) for method in ("igos", "mask"))
    (igos / "maps" / "000001.npz").unlink()
    next(mask.glob("paper-*/curves/000000.npz")).write_bytes(b"torn")
    page, missing = write_report(folder)
    told = [
        f"I-GOS at 28: the maps of 4 of 7 images are missing or damaged, see {igos}",
        f"Mask at 28: the curves of 4 of 8 images are missing or damaged, see {mask}",
    ]
    assert [line.split(";")[0] for line in missing] == told
    assert all(line in page.read_text() for line in missing)
    cells = [side_file(folder, number)["cells"] for number in range(8)]
    assert sum("levels" in found["0"] for found in cells if "0" in found) == 3
    assert sum("curves" in found["1"] for found in cells) == 4
    assert all("levels" in found["1"] for found in cells), "a map needs no curves"
    lacks = [found[index].get("lacks", []) for index in "01" for found in cells if index in found]
    assert sorted(lacks) == [*[[]] * 7, *[["curves"]] * 4, *[["map"]] * 4]
    assert len(data_of(page)["cells"][1]["deletion"]) == 8, "the numbers are all there"


def test_a_cell_without_any_curves_has_the_steps_of_its_protocol(folder: Path) -> None:
    before = data_of(write_report(folder)[0])["cells"][1]["hits"]
    for path in folder.glob("runs/*/*/mask/28/*/paper-*/curves/*.npz"):
        path.unlink()
    assert data_of(write_report(folder)[0])["cells"][1]["hits"] == before and len(before) == 201


def test_a_photograph_that_has_moved_is_said(folder: Path) -> None:
    (folder.parent / "images" / "3" / "plain0.png").rename(folder.parent / "elsewhere.png")
    page, missing = write_report(folder)
    data = data_of(page)
    number = data["ids"].index("3/plain0.png")
    assert data["unreadable"] == {str(number): f"no such image in {folder.parent / 'images'} any more"}
    assert side_file(folder, number)["photographs"] == {}
    assert side_file(folder, number)["cells"]["1"]["side"] == 28, "its heatmap is shown"
    assert "are not all those that the run was made on" in missing[0]
    assert missing[1].startswith("1 of 8 photographs cannot be shown, such as 3/plain0.png: no such image in ")

    (folder.parent / "images").rename(folder.parent / "moved")
    page, missing = write_report(folder)
    assert len(data_of(page)["unreadable"]) == 8
    assert missing[0].startswith(f"Photographs of images: data.root={folder.parent / 'images'} does not exist")


def test_a_photograph_that_is_none_any_more_is_said(folder: Path) -> None:
    path = folder.parent / "images" / "3" / "plain0.png"
    path.write_bytes(b"x" * path.stat().st_size)  # the same size, so the manifest cannot tell
    _, [line] = write_report(folder)
    assert "1 of 8 photographs cannot be shown, such as 3/plain0.png: not an image" in line


def test_a_damaged_run_leaves_the_others(folder: Path) -> None:
    paths = sorted(folder.glob("runs/*/*/*/*/*/run.json"))
    paths[0].write_text("{")
    page, [line] = write_report(folder)
    assert f"{paths[0]} cannot be read" in line and "Restore" not in line
    assert [cell["title"] for cell in data_of(page)["cells"]] == ["Mask"]
    paths[0].write_text("{}")
    page, [line] = write_report(folder)
    assert line == f"{paths[0]} is not as a run leaves it (KeyError: 'method'): it was edited"


def test_packed_runs_are_shown_as_loose_ones(folder: Path) -> None:
    write_report(folder)
    # What a side file begins with changes with the build, which minutes and file times go into.
    loose = [side_file(folder, i) for i in range(8)]
    for path in folder.glob("runs/*/*/*/*/*"):
        with Leases(path / "leases", 60) as leases:
            pack_range(RunDirectory(path, next(path.glob("paper-*")).name), leases, 0, print)
    assert len(list(folder.rglob("*.zip"))) >= 6 and not list(folder.rglob("000000.npz"))
    write_report(folder)
    assert [side_file(folder, i) for i in range(8)] == loose


def test_files_of_an_earlier_report_are_removed(folder: Path) -> None:
    write_report(folder)
    kept = folder / "report_files" / "notes.txt"
    kept.write_text("mine")
    (folder / "report_files" / "8.js").write_text("old")
    write_report(folder)
    assert sorted(path.name for path in kept.parent.iterdir()) == [*(f"{i}.js" for i in range(8)), "notes.txt"]


def test_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # to put it back afterwards
    next(folder.glob("runs/*/*/igos/28/*/maps/000000.npz")).unlink()
    monkeypatch.setattr(sys, "argv", ["igos-bench", "report", f"results_dir={folder}"])
    assert cli.main() == 0
    said = capsys.readouterr()
    assert f"written to {folder / 'report.html'}, with its pictures in {folder / 'report_files'}" in said.out
    assert said.err.startswith("igos-bench: I-GOS at 28: the maps of 3 of 7 images are missing or damaged")
    shutil.rmtree(folder / "runs")
    assert cli.main() == 0
    assert capsys.readouterr().out == f"written to {folder / 'report.html'}\n", "no pictures are left"
    monkeypatch.setattr(sys, "argv", ["igos-bench", "report", "result_dir=x"])
    assert cli.main() == 2
    assert "unknown key 'result_dir' (did you mean 'results_dir'?)" in capsys.readouterr().err


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ratio(one: str, other: str) -> float:
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_is_that_of_wcag_aa(theme: str) -> None:
    style = (TEMPLATES / "report.css").read_text()
    assert ratio("#000000", "#ffffff") == pytest.approx(21)
    light, dark = re.findall(r":root[^{]*\{([^}]*color-scheme[^}]*)\}", style)
    colours = dict(re.findall(r"--(\w+): (#\w{6});", light))
    if theme == "dark":
        colours |= dict(re.findall(r"--(\w+): (#\w{6});", dark))
    for ground in ("paper", "sunken", "chosen"):
        for text in ("ink", "quiet", "deletion", "insertion", "trouble"):
            assert ratio(colours[text], colours[ground]) >= 4.5, (theme, text, ground)
    for line in ("deletion", "insertion"):
        assert ratio(colours[line], colours["paper"]) >= 3, "of drawn lines"
