"""`igos-bench figure` of one image: what is drawn is what the runs stored."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from report_folders import HOSTILE, leave_maps, leave_photographs

from igos_bench import cli
from igos_bench.cells import Cell, read_cells
from igos_bench.config import DataConfig
from igos_bench.data import read_manifest
from igos_bench.draw.curves import curves
from igos_bench.draw.perturbed import percent, perturbed
from igos_bench.draw.pictures import heatmap, pixels
from igos_bench.draw.style import DELETION, INSERTION, style
from igos_bench.errors import UserError
from igos_bench.explained import Explained, explained
from igos_bench.figure import draw, name_of
from igos_bench.figure_words import Asked, read_figure, read_film

IMAGE = "3/a.png"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cells of I-GOS, two of Mask, and methods with one resolution of their own."""
    folder = tmp_path_factory.mktemp("figures")
    leave_photographs(folder / "images", [IMAGE, "7/b.png", *HOSTILE])
    manifest = read_manifest(DataConfig(layout="folder", root=str(folder / "images")))
    place = [source.image_id for source in manifest.images].index(IMAGE)
    for resolution in (224, 112, 28, 14):
        leave_maps(folder / "results", folder / "images", "igos", resolution)
    for resolution in (28, 224):
        leave_maps(folder / "results", folder / "images", "mask", resolution)
    leave_maps(folder / "results", folder / "images", "rise", 224, failed=[place])
    leave_maps(folder / "results", folder / "images", "grad_cam", 7, done=4)  # IMAGE is the third
    return folder / "results"


@pytest.fixture(scope="module")
def shown(results: Path) -> list[Explained]:
    cells = read_cells(results, allow_partial=True)
    return [explained(cell, IMAGE) for cell in cells if IMAGE in cell.rows.index and cell.resolution in (28, 7)]


def size(resolution: int) -> str:
    return f"{resolution} \N{MULTIPLICATION SIGN} {resolution}"


def parts(figure: Figure) -> tuple[list[Axes], list[Axes]]:
    """Panels with pictures under a title, and panels with curves."""
    pictures = [axes for axes in figure.axes if axes.images and axes.get_title()]
    return pictures, [axes for axes in figure.axes if axes.get_xlabel()]


def test_curves_are_the_stored_ones_in_red_and_blue(shown: list[Explained]) -> None:
    with style():
        pictures, panels = parts(curves(shown, 7))
    assert [axes.get_title() for axes in pictures] == [
        f"class 3, {shown[0].probability:.3f}", f"Grad-CAM\n{size(7)}", f"I-GOS\n{size(28)}", f"Mask\n{size(28)}",
    ]  # fmt: skip
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1, "all have the same axes"
    assert [axes.get_ylabel() for axes in panels] == ["Probability", "", ""]
    for one, picture, axes in zip(shown, pictures[1:], panels, strict=True):
        assert one.curve is not None
        deletion, insertion = axes.lines
        assert (to_hex(deletion.get_color()), to_hex(insertion.get_color())) == (DELETION, INSERTION)
        for line, kind in ((deletion, "deletion"), (insertion, "insertion")):
            assert np.array_equal(line.get_xdata(), 100 * one.curve.shares)
            assert np.array_equal(line.get_ydata(), getattr(one.curve, kind))
        assert axes.get_title(loc="left") == f"{one.areas['deletion']:.3f}"
        assert axes.get_title(loc="right") == f"{one.areas['insertion']:.3f}"
        assert np.array_equal(picture.images[0].get_array(), heatmap(one))  # type: ignore[arg-type]
    assert np.array_equal(pictures[0].images[0].get_array(), pixels(shown[0].photograph))  # type: ignore[arg-type]


def test_the_ink_is_where_the_curves_are(shown: list[Explained]) -> None:
    with style():
        figure = curves(shown, 7)
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(300)
        canvas.draw()
    ink = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    one, axes = shown[1], parts(figure)[1][1]
    assert one.curve is not None
    for kind, colour in (("deletion", DELETION), ("insertion", INSERTION)):
        for step in (20, 60, 140, 180):
            point = 100 * one.curve.shares[step], getattr(one.curve, kind)[step]
            if abs(one.curve.deletion[step] - one.curve.insertion[step]) < 0.05:
                continue  # they lie over one another
            x, y = axes.transData.transform(point)
            found = ink[len(ink) - 1 - round(y), round(x)]
            wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            assert abs(found - wanted).max() < 60, (kind, step, found)


@pytest.mark.parametrize(("width", "bands"), [(7.0, 1), (3.3, 2), (2.0, 3)])
def test_columns_are_never_too_narrow(shown: list[Explained], width: float, bands: int) -> None:
    with style():
        pictures, panels = parts(curves(shown, width))
    assert sum(axes.get_ylabel() == "Probability" for axes in panels) == bands
    assert len(panels) == len(shown)
    boxes = [axes.get_position() for axes in [*pictures, *panels]]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@pytest.mark.parametrize("width", [7.0, 3.3])
def test_no_text_is_cut_or_lies_over_another(shown: list[Explained], width: float) -> None:
    with style():
        for figure in (curves(shown, width), perturbed(shown, [20] * len(shown), width)):
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            texts = [t for axes in figure.axes for t in (axes.title, axes._left_title, axes._right_title)]  # type: ignore[attr-defined]
            texts += [
                t
                for axes in figure.axes
                if axes.axison
                for t in (*axes.get_xticklabels(), axes.xaxis.label, axes.yaxis.label)
            ]
            boxes = [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text() and t.get_visible()]
            for i, (text, box) in enumerate(boxes):
                assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
                assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
                for other, where in boxes[i + 1 :]:
                    assert not box.overlaps(where), (text, other)


def test_a_heatmap_leaves_what_is_cold_grey(shown: list[Explained]) -> None:
    one = shown[1]
    picture = heatmap(one)
    assert picture is not None and one.steps is not None and one.heat is not None
    colour = np.ptp(picture, axis=2)
    hot = one.heat > np.quantile(one.heat, 0.9)
    near = np.kron(hot, np.ones((8, 8)))
    assert colour[near > 0].mean() > 2 * colour[near == 0].mean(), "colours are where the map is hot"


def test_perturbed_pictures_and_what_the_network_said(shown: list[Explained]) -> None:
    steps = [one.nearest_step(0.064) for one in shown]
    with style():
        figure = perturbed(shown, steps, 7)
    rows = np.array(figure.axes).reshape(len(shown), 4)
    for one, step, (photograph, heat, *pair) in zip(shown, steps, rows, strict=True):
        assert one.curve is not None
        assert photograph.get_title() == f"class 3, {one.probability:.3f}"
        assert np.array_equal(heat.images[0].get_array(), heatmap(one))
        for axes, kind, word in zip(pair, ("deletion", "insertion"), ("deleted", "inserted"), strict=True):
            share, probability = one.curve.shares[step], getattr(one.curve, kind)[step]
            assert axes.get_title() == f"{percent(share)} {word}\nclass 3, {probability:.3f}"
            assert np.array_equal(axes.images[0].get_array(), pixels(one.perturbed(kind, step)))


def test_shares_as_they_stand_in_print() -> None:
    assert [percent(share) for share in (0, 0.0051, 0.0638, 0.5, 0.9994, 1)] == [
        "0 %", "0.51 %", "6.38 %", "50 %", "99.9 %", "100 %",
    ]  # fmt: skip


def heads(results: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """Of the columns of a figure."""
    drawn: list[Figure] = []
    monkeypatch.setattr("igos_bench.draw.style.saved", lambda figure, kind, dpi: drawn.append(figure) or b"")
    draw([*words, f"image={IMAGE}", f"results_dir={results}"])
    return [axes.get_title().replace("\n", " ") for axes in parts(drawn[0])[0][1:]]


def test_methods_and_the_resolutions_that_they_have(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert heads(results, monkeypatch, "kind=curves") == [
        f"Mask {size(28)}",
        f"Grad-CAM {size(7)}",
        f"I-GOS {size(28)}",
    ]
    assert "RISE at 224 is left out, which has nothing of 3/a.png: broke" in capsys.readouterr().err
    assert heads(results, monkeypatch, "kind=curves", "methods=[igos,mask]", "resolution=224") == [
        f"I-GOS {size(224)}", f"Mask {size(224)}",
    ]  # fmt: skip
    assert heads(results, monkeypatch, "kind=resolutions") == [f"I-GOS {size(r)}" for r in (224, 112, 28, 14)]
    with pytest.raises(UserError, match=r"Mask has no cell at 14 but at 224, 28: say another resolution="):
        heads(results, monkeypatch, "kind=curves", "resolution=14")
    with pytest.raises(UserError, match="none of the cells that were asked for has 3/a.png done"):
        heads(results, monkeypatch, "kind=curves", "methods=rise")


def test_files_have_the_resolution_that_is_drawn(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def name(*words: str) -> str:
        return draw([*words, "dpi=72", f"image={IMAGE}", f"results_dir={results}"])[0].stem

    assert name("kind=perturbed", "methods=grad_cam").endswith("-grad_cam-7-0.064")
    assert name("kind=curves", "methods=[igos,mask]").endswith("-igos+mask-28")
    assert name("kind=curves", "methods=[igos,mask]", "resolution=224").endswith("-igos+mask-224")
    assert name("kind=curves", "methods=[igos,grad_cam]").endswith("-igos+grad_cam"), "which are at 28 and 7"
    assert name("kind=curves", "methods=[igos,grad_cam]", "resolution=224").endswith("-igos+grad_cam-224")
    capsys.readouterr()


@pytest.fixture
def variants(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """I-GOS with two settings, one of them at two resolutions, and Mask; and the runs' keys."""
    leave_photographs(tmp_path / "images", [IMAGE])
    for note, resolution in (("one", 28), ("two", 28), ("two", 14)):
        leave_maps(tmp_path / "results", tmp_path / "images", "igos", resolution, parameters={"note": note})
    leave_maps(tmp_path / "results", tmp_path / "images", "mask", 28)
    cells = read_cells(tmp_path / "results")
    return tmp_path / "results", {f"{cell.label} {cell.resolution}": cell.run_key for cell in cells}


def test_runs_by_their_keys(variants: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    results, keys = variants
    one, two, coarse, mask = (
        keys[name] for name in ("igos note=one 28", "igos note=two 28", "igos note=two 14", "mask 28")
    )
    drawn = {name: f"I-GOS note={name} {size(28)}" for name in ("one", "two")}
    coarser = f"I-GOS note=two {size(14)}"
    assert heads(results, monkeypatch, "kind=curves") == [f"Mask {size(28)}", *drawn.values()]
    assert heads(results, monkeypatch, "kind=curves", f"run={two[:8]}") == [drawn["two"]]
    assert heads(results, monkeypatch, "kind=curves", f"run=[{two},{mask},{two}]") == [drawn["two"], f"Mask {size(28)}"]
    assert heads(results, monkeypatch, "kind=curves", f"run={one},{coarse}") == [drawn["one"], coarser]
    assert heads(results, monkeypatch, "kind=resolutions", f"run=[{two},{coarse}]") == [drawn["two"], coarser]
    with monkeypatch.context() as patch:
        pictures: list[Figure] = []
        patch.setattr("igos_bench.draw.style.saved", lambda figure, kind, dpi: pictures.append(figure) or b"")
        paths = draw(["kind=perturbed", f"run={mask}", f"image={IMAGE}", f"results_dir={results}"])
        assert " ".join(pictures[0].axes[1].get_title().split()) == f"Mask {size(28)}"
        assert paths[0].stem.endswith(f"-28-0.064-run_{mask}")
    with pytest.raises(
        UserError, match=f"igos has no run at 28 whose key begins with {coarse}; there are .*{one} at 28"
    ):
        heads(results, monkeypatch, "kind=curves", "methods=igos", "resolution=28", f"run={coarse}")
    with pytest.raises(UserError, match="mask and igos has no run whose key begins with xyz; there are "):
        heads(results, monkeypatch, "kind=curves", f"run=[{one},xyz]")


def test_the_key_of_a_run_is_no_number() -> None:
    for words, keys in (("12e4", ["12e4"]), ("012", ["012"]), ("[12e4,ab]", ["12e4", "ab"]), ("1, 2", ["1", "2"])):
        assert read_figure(["kind=curves", "image=a", f"run={words}"]).run == keys
    assert read_film(["image=a", "run=12e4"]).run == ["12e4"]
    with pytest.raises(UserError, match=r"run=\[a,b\]: give one run$"):
        read_film(["image=a", "run=[a,b]"])
    with pytest.raises(UserError, match="unknown key of kind=scatter 'run'"):
        read_figure(["kind=scatter", "run=a"])
    with pytest.raises(
        UserError, match=r"resolution=1,2: give one resolution; only methods=\[...\] and run=\[...\] may"
    ):
        read_figure(["kind=curves", "image=a", "resolution=1,2"])


def test_a_key_that_several_runs_begin_with(tmp_path: Path) -> None:
    leave_photographs(tmp_path / "images", [IMAGE])
    for note in range(17):  # one more than there are digits
        leave_maps(tmp_path / "results", tmp_path / "images", "igos", 7, parameters={"note": note})
    keys = [cell.run_key for cell in read_cells(tmp_path / "results")]
    twice = next(key[0] for key in keys if sum(other[0] == key[0] for other in keys) > 1)
    with pytest.raises(UserError, match=rf"\d runs have a key that begins with {twice}, say which: .*run={twice}"):
        draw(["kind=curves", f"run={twice}", f"image={IMAGE}", f"results_dir={tmp_path / 'results'}"])


def test_a_cell_without_its_map_leaves_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_photographs(tmp_path / "images", [IMAGE])
    whole, mapless, curveless = (
        leave_maps(tmp_path / "results", tmp_path / "images", method, 28) for method in ("igos", "mask", "rise")
    )
    (mapless.path / "maps" / "000000.npz").unlink()
    (curveless.protocol_path / "curves" / "000000.npz").unlink()
    words = ["kind=perturbed", "methods=[igos,mask,rise]", "fraction=0.5", f"image={IMAGE}"]
    [png, _] = draw([*words, "dpi=72", f"results_dir={tmp_path / 'results'}"])
    assert 2 * int.from_bytes(png.read_bytes()[20:24], "big") < int.from_bytes(png.read_bytes()[16:20], "big")
    told = capsys.readouterr().err.splitlines()
    assert [line.split(", see")[0] for line in told] == [
        "igos-bench: Mask at 28 is left out: its map is missing or damaged",
        "igos-bench: RISE at 28 is left out: its curves are missing or damaged",
    ]
    (whole.path / "maps" / "000000.npz").unlink()
    with pytest.raises(
        UserError, match="no picture of 3/a.png can be composed: I-GOS at 28: its map .*RISE at 28: its"
    ):
        draw([*words, f"results_dir={tmp_path / 'results'}"])
    assert capsys.readouterr().err == ""
    assert draw(["kind=curves", f"image={IMAGE}", f"results_dir={tmp_path / 'results'}"]), "which says it in its place"


def test_a_share_between_two_steps_is_told(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"image={IMAGE}", "kind=perturbed", "dpi=72", f"results_dir={results}"]
    paths = draw([*words, "fraction=0.064"])
    assert "I-GOS at 28: no step of the metric is at 0.064; the nearest, 0.0651, is shown" in capsys.readouterr().err
    assert [path.suffix for path in paths] == [".png", ".pdf"]
    assert b"/FontFile2" in paths[1].read_bytes() and b"/Type3" not in paths[1].read_bytes()
    draw([*words, "fraction=0.5"])
    assert capsys.readouterr().err == ""


def test_every_dot_that_was_asked_for(results: Path) -> None:
    for dpi in (72, 200):
        [png, _] = draw(
            ["kind=curves", "methods=igos", "width=5", f"dpi={dpi}", f"image={IMAGE}", f"results_dir={results}"]
        )
        assert int.from_bytes(png.read_bytes()[16:20], "big") == 5 * dpi


def test_files_of_different_images_have_different_names() -> None:
    names = [name_of(Asked("curves", image=image)) for image in ("a_b.png", "a/b.png", "a b.png", *HOSTILE)]
    assert len(set(names)) == len(names) and names[0] == "curves-a_b.png"
    perturbed_28 = Asked("perturbed", image="a", methods=["igos", "mask"], resolution=28)
    assert name_of(perturbed_28) == "perturbed-a-igos+mask-28-0.064"
    assert all(name.isascii() and "/" not in name and len(name) < 120 for name in names)


@pytest.mark.parametrize("kind", ["scatter", "time", "curves", "perturbed", "resolutions", "film"])
def test_files_of_different_cells_have_different_names(kind: str) -> None:
    plain = Asked(kind, image="" if kind in ("scatter", "time") else "a")
    others: list[dict[str, Any]] = [
        {"model": "vgg19"}, {"data": "vgg19"}, {"protocol": "rise"}, {"protocol": "ri/se"}, {"protocol": "ri_se"},
    ]  # fmt: skip
    if kind in ("resolutions", "film"):
        others += [{"method": "mask"}]
    else:
        long = [f"method{i}" for i in range(20)]
        others += [{"methods": ["mask"]}, {"methods": ["mask", "igos"]}, {"methods": long}, {"methods": long[:-1]}]
    if plain.image:
        others += [{"run": ["0123"]}, {"run": ["0124"]}, {"run": ["0123", "0124"]}]
    names = [name_of(plain), *(name_of(replace(plain, **other)) for other in others)]
    assert len(set(names)) == len(names)
    assert all(name.isascii() and "/" not in name for name in names)
    whole = replace(plain, model="m" * 300, data="d" * 300, protocol="p" * 300, run=["r" * 300])
    assert len(name_of(whole)) < 220


@pytest.mark.parametrize("image", HOSTILE)
def test_any_name_of_an_image(results: Path, image: str) -> None:
    assert read_figure(["kind=curves", f"image={image}"]).image == image
    assert all(p.exists() for p in draw(["kind=curves", "methods=igos", f"image={image}", f"results_dir={results}"]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["kind=curves"], "say of which image: image=ID"),
        (["kind=scatter", "image=a"], "unknown key of kind=scatter 'image'"),
        (["kind=resolutions", "image=a", "methods=[igos]"], "unknown key .* 'methods' .did you mean 'method'"),
        (["kind=perturbed", "image=a", "fraction=6.4"], "fraction=6.4: give the share"),
        (["kind=perturbed", "image=a", "fraction=nan"], "fraction=nan: give the share"),
        (["kind=curves", "image=a", "resolution=28.5"], "resolution=28.5: give whole numbers"),
        (["kind=curves", "image=a", "dpi=9000"], "dpi=9000: give dots an inch from 72 to 600"),
    ],
)
def test_mistakes_are_named(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_figure(words)


def test_an_unknown_image(results: Path) -> None:
    with pytest.raises(UserError, match=r"no cell has an image '3/aa.png'; there are 3/a.png, .* and \d more"):
        draw(["kind=curves", "image=3/aa.png", f"results_dir={results}"])


def test_what_is_missing_is_said_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_photographs(tmp_path / "images", [IMAGE, "7/b.png"])
    whole = leave_maps(tmp_path / "results", tmp_path / "images", "igos", 28)
    lacking = leave_maps(tmp_path / "results", tmp_path / "images", "mask", 28)
    (lacking.path / "maps" / "000000.npz").unlink()
    (tmp_path / "images").rename(tmp_path / "moved")

    def texts(cells: list[Cell]) -> str:
        with style():
            figure = curves([explained(cell, IMAGE) for cell in cells], 7)
        return " ".join(" ".join(text.get_text().split()) for axes in figure.axes for text in axes.texts)

    found = texts(read_cells(tmp_path / "results"))
    assert "its photograph cannot be shown" in found and "its map is missing or damaged" in found
    assert draw(["kind=curves", f"image={IMAGE}", f"results_dir={tmp_path / 'results'}"])
    told = capsys.readouterr().err
    assert told.count("its photograph cannot be shown") == 1 and "Mask at 28: its map is missing" in told
    with monkeypatch.context() as patch:
        words = ["kind=perturbed", f"image={IMAGE}", f"results_dir={tmp_path / 'results'}"]
        patch.setattr(sys, "argv", ["igos-bench", "figure", *words])
        patch.setattr(warnings, "showwarning", warnings.showwarning)  # to put it back afterwards
        assert cli.main() == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "3/a.png can be composed: I-GOS at 28: its photograph cannot be shown" in told
    (whole.protocol_path / "curves" / "000000.npz").unlink()
    assert "curves missing or damaged" in texts(read_cells(tmp_path / "results"))
