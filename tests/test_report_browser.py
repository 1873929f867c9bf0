"""What the page of the report does, in a real browser: `make test-browser` runs it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from browsing import DESKTOP, SECTIONS, Open, canvas, column, photographs, shoot, slide, turn_to, view
from playwright.sync_api import Browser, Page
from report_folders import HOSTILE, REASON, leave_maps, leave_photographs

from igos_bench.config import DataConfig, Preprocessing, ProtocolConfig
from igos_bench.data import read_manifest
from igos_bench.images import decode, preprocess
from igos_bench.metrics import Protocol, rank
from igos_bench.perturb import blend
from igos_bench.report import write_report
from igos_bench.results import RunDirectory

pytestmark = pytest.mark.browser

TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def test_sections_by_their_links(report: Path, open_page: Open) -> None:
    page = open_page(report)
    for section in SECTIONS:
        turn_to(page, section)
        assert page.locator("main > section:visible").count() == 1
        assert page.evaluate("scrollY") == 0
    assert column(page, "nav a[aria-current]") == ["Provenance"]


# The gallery


def test_the_gallery_filters(report: Path, open_page: Open) -> None:
    page = open_page(report, "images")
    count = page.locator("#count")
    assert count.inner_text() == "20 images, 111 maps, 1 failed"
    page.select_option("[name=method]", "Mask")
    assert count.inner_text() == "20 images, 32 maps"
    page.select_option("[name=resolution]", "224")
    assert count.inner_text() == "12 images, 12 maps"
    page.select_option("[name=method]", "")
    page.select_option("[name=resolution]", "14")
    page.select_option("[name=outcome]", "hit")  # the class that every image is taken for is 3
    assert count.inner_text() == "12 images, 12 maps"
    assert {text.split()[0] for text in column(page, ".row .class")} == {"3"}
    page.select_option("[name=outcome]", "miss")
    assert count.inner_text() == "8 images, 8 maps"
    page.select_option("[name=class]", "3")
    assert count.inner_text() == "0 images, 0 maps" and page.locator(".row").count() == 0
    page.select_option("[name=outcome]", "")
    page.select_option("[name=class]", "7")
    assert count.inner_text() == "8 images, 8 maps"
    page.select_option("[name=class]", "")
    page.fill("[name=query]", "PLAIN03")
    assert count.inner_text() == "1 image, 1 map" and column(page, ".row .id") == ["7/plain03.png"]


def test_the_gallery_says_what_failed(report: Path, open_page: Open) -> None:
    """An image that failed in a cell has no row there, and is said beside those that match the same filters."""
    page = open_page(report, "images")
    count, failed = page.locator("#count"), page.locator("#failed")
    image_id = page.locator("#failures tbody th").text_content()
    said = f"{image_id}, I-GOS note=<i>one</i> at 28: {REASON}".replace("\u2028", "\\u2028")
    assert image_id and column(page, "#failed li") == [said, "All failures"]
    page.fill("[name=query]", image_id)
    assert count.inner_text() == "1 image, 5 maps, 1 failed" and failed.locator("li").first.inner_text() == said
    page.select_option("[name=method]", "I-GOS note=<i>one</i>")
    page.select_option("[name=resolution]", "28")
    assert count.inner_text() == "0 images, 0 maps, 1 failed" and failed.locator("li").first.inner_text() == said
    page.select_option("[name=class]", "7")
    page.select_option("[name=outcome]", "hit")  # what failed has neither class nor prediction
    assert count.inner_text() == "0 images, 0 maps, 1 failed (of any class and prediction)"
    page.select_option("[name=outcome]", "")
    page.select_option("[name=class]", "")
    for name, value in (("method", "Mask"), ("resolution", "14")):
        page.select_option(f"[name={name}]", value)
        assert "failed" not in count.inner_text() and failed.is_hidden()
        page.select_option(f"[name={name}]", {"method": "I-GOS note=<i>one</i>", "resolution": "28"}[name])
        assert failed.is_visible()
    page.fill("[name=query]", "plain03")
    assert count.inner_text() == "1 image, 1 map" and failed.is_hidden()
    page.fill("[name=query]", image_id)
    failed.locator("a").click()
    page.locator("#failures").wait_for()


def test_of_many_failures_the_first_are_named(tmp_path: Path, open_page: Open) -> None:
    leave_photographs(tmp_path / "images", [f"3/plain{i}.png" for i in range(9)])
    leave_maps(tmp_path / "results", tmp_path / "images", "igos", 28, failed=range(7))
    page = open_page(write_report(tmp_path / "results")[0], "images")
    assert page.inner_text("#count") == "2 images, 2 maps, 7 failed"
    named = column(page, "#failed li")
    assert len(set(named[:3])) == 3 and all(REASON[:5] in text for text in named[:3])
    assert named[3:] == ["and 4 more: All failures"]
    page.select_option("[name=outcome]", "miss")
    assert page.locator(".row").count() == 0 and len(column(page, "#failed li")) == 8, "there is room"


def test_the_opacity_slider_paints_each_row_once(report: Path, open_page: Open) -> None:
    """However many events a slide has, what then comes into sight is painted soon, and all at the last opacity."""
    page = open_page(report, "images")
    assert all(painted(page))
    rows, frames = page.evaluate(
        """async () => {
          const slider = document.querySelector("[name=opacity]");
          for (let i = 0; i < 60; i++) {
            slider.value = i;
            slider.dispatchEvent(new Event("input"));
          }
          for (let i = 0; i < 6; i++) await new Promise(requestAnimationFrame); // some are painted, others wait
          slider.value = 0;
          slider.dispatchEvent(new Event("input"));
          scrollBy(0, 2 * rowHeight());
          draw();
          const rows = [...document.querySelectorAll(".row")];
          let frames = 0;
          while (!rows.every((row) => row.querySelector(".spark").firstChild)) {
            await new Promise(requestAnimationFrame);
            frames++;
          }
          return [rows.length, frames];
        }"""
    )
    assert frames < 6 * rows, "a paint is a frame or a few"
    page.wait_for_timeout(1000)
    pictures = "[...document.querySelectorAll('.row canvas')].map((canvas) => canvas.toDataURL())"
    shown = page.evaluate(pictures)
    page.evaluate("redraw()")
    assert all(painted(page))
    assert sorted(page.evaluate(pictures)) == sorted(shown)


def test_names_are_text(report: Path, open_page: Open) -> None:
    page = open_page(report, "images")
    for name in HOSTILE:
        page.fill("[name=query]", name)
        assert set(column(page, ".row .id")) == {name}
        page.locator(".row").first.click()
        assert page.inner_text("#viewer-title") == name
        page.keyboard.press("Escape")
    turn_to(page, "failures")
    assert page.locator("#failures .reason").all_text_contents() == [REASON.replace("\u2028", "\\u2028")]
    turn_to(page, "areas")
    assert "I-GOS note=<i>one</i>" in page.inner_text("#areas")
    assert page.evaluate("window.hit") is None
    assert page.locator("img, i, b:not(.deletion-text, .insertion-text)").count() == 0


# One image


def test_the_pictures_are_those_of_the_metric(shown_run: tuple[Path, RunDirectory], open_page: Open) -> None:
    """The ends are the image and its baseline but for what JPEGs lose; between them it is `perturb.blend` of these."""
    path, directory = shown_run
    page = open_page(path, "images")
    view(page, "plain03", "I-GOS note=<i>one</i>", 28)

    root = path.parent.parent / "images"
    [source] = [s for s in read_manifest(DataConfig(layout="folder", root=str(root))).images if "plain03" in s.image_id]
    image = preprocess(decode(source.path, max_pixels=10**6), Preprocessing.plain)[None]
    protocol = Protocol.from_config(ProtocolConfig())
    slide(page, "#step", 0)
    photograph, blurred = pixels(page, "#deleted"), pixels(page, "#inserted")
    for shown, true in ((photograph, image), (blurred, protocol.deletion_baseline(image))):
        assert (shown - 255 * true).abs().max() < 12 and (shown - 255 * true).abs().mean() < 1.5

    [saliency_map] = [
        torch.from_numpy(chunk[source.image_id]["map"])[None]
        for chunk in directory.results()
        if source.image_id in chunk
    ]
    for step in (1, 13, 150, 199, 200):
        slide(page, "#step", step)
        hit = (rank(saliency_map)[0] < protocol.hits(28 * 28)[step]).float().view(1, 1, 28, 28)
        for selector, mask in (("#deleted", 1 - hit), ("#inserted", hit)):
            assert (pixels(page, selector) - blend(photograph, blurred, mask)).abs().max() < 0.51, "but for rounding"


def pixels(page: Page, selector: str) -> torch.Tensor:
    """Of a canvas, (1, 3, 224, 224) in [0, 255]."""
    return torch.from_numpy(canvas(page, selector).astype(np.float32)).permute(2, 0, 1)[None]


def test_the_slider_moves_pictures_and_both_points(report: Path, open_page: Open) -> None:
    page = open_page(report, "images")
    view(page, "plain03", "Mask", 28)
    places, pictures = [], []
    for step, share in ((0, "0.0 %"), (50, "25.0 %"), (200, "100.0 %")):
        slide(page, "#step", step)
        assert page.inner_text("#share") == share
        captions = column(page, "#viewer figcaption")
        assert captions[1].startswith(f"Deleted {share}, probability ") and captions[2].startswith(
            f"Inserted {share}, "
        )
        points = page.locator("circle.point").evaluate_all(
            "points => points.map((p) => [+p.getAttribute('cx'), +p.getAttribute('cy')])"
        )
        assert points[0][0] == points[1][0], "both at the same share"
        places.append(points)
        pictures.append(
            (canvas(page, "#deleted"), canvas(page, "#inserted"), *(float(text.split()[-1]) for text in captions[1:3]))
        )
    assert places[0][0][0] < places[1][0][0] < places[2][0][0]
    assert places[0][0][1] < places[2][0][1] and places[0][1][1] > places[2][1][1], "one falls and the other rises"
    first, _, last = pictures
    assert np.array_equal(first[0], last[1]) and np.array_equal(first[1], last[0]), "image and baseline change places"
    assert first[2] == last[3] and first[3] != first[2]


def test_the_opacity_slider(report: Path, open_page: Open) -> None:
    page = open_page(report, "images")
    view(page, "plain03", "I-GOS note=<i>one</i>", 14)
    slide(page, "#step", 0)
    photograph = canvas(page, "#deleted")
    slide(page, "#opacity", 0)
    assert np.array_equal(canvas(page, "#heatmap"), photograph)
    slide(page, "#opacity", 70)
    spread = np.ptp(canvas(page, "#heatmap"), axis=2)
    assert np.quantile(spread, 0.1) < 40 < 120 < spread.max(), "what is cold is grey, what is hot has a colour"
    slide(page, "#opacity", 100)
    heat = canvas(page, "#heatmap")
    assert column(page, ".scale") == ["low\nhigh"]
    page.fill("#viewer >> css=#step", "100")
    page.select_option("#colours", "rank")
    assert not np.array_equal(canvas(page, "#heatmap"), heat)
    assert column(page, ".scale") == ["deleted last\ndeleted first"]
    [scale] = canvas(page, "#scale")
    assert len(scale) == 256 and {tuple(colour) for colour in heat.reshape(-1, 3)} <= set(map(tuple, scale))
    assert np.diff(scale.astype(int).sum(axis=1)).min() >= 0, "the hotter the brighter"


def test_the_keyboard(report: Path, open_page: Open) -> None:
    page = open_page(report, "images")
    page.select_option("[name=resolution]", "14")
    page.focus("#rows")
    names = column(page, ".row .id")
    for key, at in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("End", 19), ("Home", 0), ("ArrowDown", 1)):
        page.keyboard.press(key)
        assert page.get_attribute("#rows", "aria-activedescendant") == f"row-{at}"
        box = page.locator(".row.chosen").bounding_box()
        assert box and box["y"] > -1 and box["y"] + box["height"] < DESKTOP[1] + 1, f"{key}: it is in sight"
    page.keyboard.press("Enter")
    assert page.inner_text("#viewer-title") == names[1]
    page.wait_for_selector("#curves svg")
    page.keyboard.press("n")
    assert page.inner_text("#viewer-title") == names[2]
    page.keyboard.press("p")
    page.keyboard.press("p")
    assert page.inner_text("#viewer-title") == names[0]
    assert page.locator("#previous").is_disabled()
    page.wait_for_selector("#curves svg")
    page.focus("#step")
    before = page.inner_text("#share")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("before => document.getElementById('share').innerText !== before", arg=before)
    page.keyboard.press("Escape")
    page.locator("#viewer").wait_for(state="hidden")
    page.wait_for_function("document.activeElement.id === 'rows'")
    # One goes on from what was looked at last.
    page.locator("#rows[aria-activedescendant=row-0]").wait_for(state="attached")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    for _ in range(10):
        page.keyboard.press("p")
    last = page.inner_text("#viewer-title")
    page.keyboard.press("Escape")
    page.locator("#rows[aria-activedescendant=row-9]").wait_for(state="attached")
    assert page.inner_text(".row.chosen .id") == last
    box = page.locator(".row.chosen").bounding_box()
    assert box and box["y"] > -1 and box["y"] + box["height"] < DESKTOP[1] + 1, "it is in sight"
    # Everything that can be pressed is reached by Tab.
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.name || document.activeElement.id || document.activeElement.hash")
        )
    assert {"theme", "#areas", "#provenance", "method", "query", "opacity", "Deletion", "rows"} <= reached


def test_the_keys_outlive_what_had_the_focus(report: Path, open_page: Open) -> None:
    """A button that is disabled or taken out while it has the focus passes it on within the dialog."""
    page = open_page(report, "images")
    page.select_option("[name=resolution]", "14")
    names = column(page, ".row .id")

    def shows(name: str, focus: str) -> None:
        page.locator("#viewer-title", has_text=name).wait_for()
        page.wait_for_function("() => viewed.pictures")
        page.evaluate(TWO_FRAMES)
        assert page.evaluate(f"document.activeElement.matches('{focus}')"), f"{name}: {focus}"

    page.focus("#rows")
    for way, back, first, second in (("p", "n", "Home", "ArrowDown"), ("n", "p", "End", "ArrowUp")):
        page.keyboard.press(first)
        end = page.inner_text(".row.chosen .id")
        page.keyboard.press(second)
        before = page.inner_text(".row.chosen .id")
        page.keyboard.press("Enter")
        page.focus({"p": "#previous", "n": "#next"}[way])
        page.keyboard.press(way)
        shows(end, {"p": "#next", "n": "#previous"}[way])
        page.keyboard.press(back)
        shows(before, {"p": "#next", "n": "#previous"}[way])
        page.keyboard.press("Escape")
        page.evaluate(TWO_FRAMES)  # the dialog's close event comes after it
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_function("() => viewed.pictures")
    page.locator("#siblings button").last.focus()
    page.keyboard.press("Enter")
    page.locator("#siblings button:last-child[aria-current]").wait_for()
    assert page.evaluate("document.activeElement.matches('#siblings [aria-current]')")
    page.keyboard.press("n")
    shows(names[1], "#siblings [aria-current]")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("n")
    page.locator("#viewer-title", has_text=names[2]).wait_for()


def test_a_sibling_leaves_the_place_in_the_list(report: Path, open_page: Open) -> None:
    page = open_page(report, "images")
    page.select_option("[name=resolution]", "14")
    names = column(page, ".row .id")
    title, about = page.locator("#viewer-title"), page.locator("#viewer-about")
    for key, to in (("n", 6), ("p", 4)):
        page.locator(".row .id", has_text=names[5]).click()
        page.locator("#siblings button", has_text="RISE").click()
        about.filter(has_text="RISE at 7").wait_for()
        assert title.inner_text() == names[5] and page.locator("#previous").is_enabled()
        page.keyboard.press(key)
        title.filter(has_text=names[to]).wait_for()
        assert "at 14" in about.inner_text()
        page.keyboard.press("Escape")
    page.locator(".row .id", has_text=names[5]).click()
    page.locator("#siblings button", has_text="RISE").click()
    about.filter(has_text="RISE at 7").wait_for()
    page.keyboard.press("Escape")
    page.locator("#rows[aria-activedescendant=row-5]").wait_for(state="attached")
    # One that the list has is a new place in it.
    page.select_option("[name=resolution]", "")
    page.fill("[name=query]", "plain03")
    page.locator(".row").first.click()
    page.locator("#siblings button").nth(2).click()
    page.locator("#siblings button:nth-child(3)[aria-current]").wait_for()
    page.keyboard.press("Escape")
    page.locator("#rows[aria-activedescendant=row-2]").wait_for(state="attached")
    # Among the best and the worst.
    turn_to(page, "extremes")
    best = page.locator(".extreme .strip").first
    _, second, third, _ = [text.split("\n")[0] for text in best.locator("button").all_inner_texts()]
    best.locator("button").nth(1).click()
    page.locator("#siblings button", has_text="RISE").click()
    about.filter(has_text="RISE at 7").wait_for()
    assert title.inner_text() == second
    page.keyboard.press("n")
    title.filter(has_text=third).wait_for()
    assert "RISE" not in about.inner_text()


def test_the_viewer_names_what_its_cells_share(report: Path, open_page: Open) -> None:
    page = open_page(report, "images")
    view(page, "plain03", "Mask", 28)
    table = page.locator("[name=group] option").first.text_content()
    assert table == "toy, images, protocol paper"
    assert f"Mask at 28; {table}; predicted" in page.inner_text("#viewer-about")
    assert column(page, "#viewer h3") == ["This image in the cells of the same model, data and protocol"]


def test_the_same_image_in_other_cells(report: Path, open_page: Open) -> None:
    page = open_page(report, "images")
    view(page, "plain03", "I-GOS note=<i>one</i>", 14)
    siblings = page.locator("#siblings button")
    assert siblings.count() in (5, 6)
    slide(page, "#step", 98)
    for method, share in (("Mask", "50.0 %"), ("RISE", "51.0 %")):  # which has 49 steps
        siblings.filter(has_text=method).last.click()
        page.locator("#viewer-about", has_text=f"{method} at").wait_for()
        # It stays, as near as the number of steps allows, once the pictures are there.
        page.locator("#share", has_text=share).wait_for()


def test_best_and_worst(report: Path, open_page: Open) -> None:
    page = open_page(report, "extremes")
    for by, sign in (("contrast", 1), ("deletion", -1), ("insertion", 1)):
        page.select_option("[name=by]", by)
        for row in page.locator(".extreme").all():
            strips = []
            for strip in row.locator(".strip").all():
                pairs = [
                    tuple(map(float, text.split("\n")[-1].split(" / ")))
                    for text in strip.locator("button").all_inner_texts()
                ]
                keys = [{"contrast": i - d, "deletion": d, "insertion": i}[by] for d, i in pairs]
                strips.append([round(sign * key, 2) for key in keys])  # three digits are shown of each
            best, worst = strips
            assert len(best) == len(worst) == 4
            assert best == sorted(best, reverse=True) and worst == sorted(worst) and best[-1] >= worst[-1]
    assert column(page, ".extreme > :first-child")[3].startswith("Mask !\nat 224, 12 images"), "a half-finished cell"
    assert "Below each picture its areas: deletion / insertion." in page.inner_text("#extremes")
    page.locator(".strip button").first.click()
    assert page.locator("#viewer").is_visible()
    page.wait_for_selector("#curves svg")
    for kind in ("deletion", "insertion"):
        name, curve = page.locator(f"#curves text.{kind}"), page.locator(f"#curves .curve.{kind}")
        colours = name.evaluate("e => getComputedStyle(e).fill"), curve.evaluate("e => getComputedStyle(e).stroke")
        assert name.text_content() == kind and colours[0] == colours[1], "the curve's own"


# What is missing


def test_what_is_missing_is_said_in_its_place(tmp_path: Path, open_page: Open) -> None:
    photographs(tmp_path / "images")
    results = tmp_path / "results"
    directory = leave_maps(results, tmp_path / "images", "igos", 28)
    leave_maps(results, tmp_path / "images", "mask", 28, done=8)
    [source] = [
        s
        for s in read_manifest(DataConfig(layout="folder", root=str(tmp_path / "images"))).images
        if "plain03" in s.image_id
    ]
    source.path.rename(tmp_path / "moved.png")
    images = (directory.path / "images.txt").read_text().splitlines()
    (directory.path / "maps" / "000000.npz").unlink()
    (directory.protocol_path / "curves" / "000001.npz").unlink()
    path, missing = write_report(results)
    page = open_page(path, "images")
    assert column(page, "aside li") == missing and len(missing) == 5
    assert "Mask at 28 has 8 of 20 images." in missing

    def trouble_of(image_id: str) -> str:
        page.fill("[name=query]", image_id)
        page.select_option("[name=method]", "I-GOS")
        page.locator(".row", has_text=image_id).first.click()
        page.locator("#viewer-title", has_text=image_id).wait_for()
        page.locator("#viewer-trouble:not(:empty)").wait_for()
        text = page.inner_text("#viewer-trouble")
        page.keyboard.press("Escape")
        return text

    assert trouble_of("plain03").startswith("Photograph: no such image in ")
    assert "no photograph" in page.locator(".row").first.inner_text()
    shoot(page, "missing")
    row, spark = page.locator(".row").first, page.locator(".row .spark").first
    sibling, caption = page.locator("#siblings button").first, page.locator("#viewer figcaption").first
    assert trouble_of(images[0]) == "The map of this image is missing or damaged."
    row.get_by_text("no map").wait_for()
    assert spark.locator(".curve").count() == 2
    row.click()
    sibling.get_by_text("no map", exact=True).wait_for()
    assert caption.inner_text() == "Photograph, no map"
    page.click("#close")
    trouble = trouble_of(images[4])
    assert trouble == "The curves of this image are missing or damaged; its map is shown without them."
    spark.get_by_text("no curves").wait_for()
    assert row.locator(".lack").inner_text() == "", "its map is there"
    row.click()
    page.locator("#viewer-trouble:not(:empty)").wait_for()
    assert caption.inner_text() == "Heatmap" and sibling.locator(".lack").inner_text() == ""
    assert np.ptp(canvas(page, "#heatmap"), axis=2).max() > 120, "in colours"
    shoot(page, "no-curves")
    before = canvas(page, "#deleted")
    slide(page, "#step", 150)
    assert not np.array_equal(canvas(page, "#deleted"), before), "pictures need no curves"
    page.click("#close")
    page.fill("[name=query]", images[8])
    page.wait_for_selector(".row .curve")
    assert row.locator(".lack").inner_text() == ""
    row.click()
    page.wait_for_selector("#curves svg")
    assert caption.inner_text() == "Heatmap" and sibling.locator(".lack").inner_text() == ""
    page.click("#close")
    turn_to(page, "areas")
    assert "8 of 20 !" in column(page, "#areas td")
    turn_to(page, "provenance")
    page.locator("summary").first.click()
    assert "run.json lacks method_version, " in page.locator("pre").first.inner_text()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A report of one cell and four images."""
    leave_photographs(tmp_path / "images", [f"3/plain{i}.png" for i in range(4)])
    leave_maps(tmp_path / "results", tmp_path / "images", "igos", 28)
    return write_report(tmp_path / "results")[0]


def file_of(path: Path, image_id: str) -> Path:
    [ids] = re.findall(r'"ids":(\[.*?\])', path.read_text())
    return path.parent / "report_files" / f"{json.loads(ids).index(image_id)}.js"


def painted(page: Page) -> list[bool]:
    """Of the rows from the top, once all are settled: whether there is a heatmap and its curves."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('.row .spark')].every((place) => place.childNodes.length)"
    )
    return page.evaluate(
        """() => [...document.querySelectorAll('.row')].map((row) => {
          const canvas = row.querySelector('canvas');
          const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
          return pixels.some((value) => value) && row.querySelectorAll('.curve').length === 2;
        })"""
    )


def test_a_file_of_another_report_is_refused(small: Path, open_page: Open) -> None:
    """As it is after a second report that was interrupted before its page, or in a tab left open over one."""
    path = file_of(small, "3/plain1.png")
    text = path.read_text()
    path.write_text(re.sub(r'"[0-9a-f]{16}"', f'"{"0" * 16}"', text, count=1))
    page = open_page(small, "images")
    assert painted(page) == [True, False, True, True]
    said = f"report_files/{path.name} was made for another report: make it again"
    row = page.locator(".row").nth(1)
    assert said in row.inner_text() and "no pictures" in row.inner_text()
    row.click()
    page.locator("#viewer-trouble", has_text=said).wait_for()
    assert page.locator("#curves svg").count() == 0
    assert page.locator("#siblings button", has_text="no pictures").count() == 1
    shoot(page, "another-report")


def test_a_damaged_file_leaves_the_other_rows(small: Path, browser: Browser) -> None:
    path = file_of(small, "3/plain0.png")
    path.write_bytes(path.read_bytes()[:1000])
    page = browser.new_page()
    page.goto(f"{small.as_uri()}#images")
    assert painted(page) == [False, True, True, True]
    said = f"report_files/{path.name} is damaged: make the report again"
    assert said in page.locator(".row").first.inner_text()
    page.locator(".row").first.click()
    page.locator("#viewer-trouble", has_text=said).wait_for()
    page.close()


def test_no_runs(tmp_path: Path, open_page: Open) -> None:
    page = open_page(write_report(tmp_path)[0], "images")
    assert page.inner_text("main").startswith("There are no runs under ")
    assert not page.locator("nav, section").locator("visible=true").count()
    shoot(page, "no-runs")


def test_a_page_without_its_pictures(shown_run: tuple[Path, RunDirectory], tmp_path: Path, browser: Browser) -> None:
    """Sent by mail alone, it still has its tables, and says what is missing."""
    alone = tmp_path / "report.html"
    shutil.copy(shown_run[0], alone)
    page = browser.new_page()
    page.goto(f"{alone.as_uri()}#images")
    page.locator(".row").first.click()
    page.locator("#viewer-trouble:not(:empty)").wait_for()
    text = page.inner_text("#viewer-trouble")
    assert text.startswith("report_files/") and ".js is not beside this page: move the folder along with it" in text
    page.close()


def test_the_policy_lets_nothing_out(report: Path, browser: Browser) -> None:
    """Even a script that got into the page could not load or send anything."""
    page = browser.new_page()
    page.goto(report.as_uri())
    blocked = page.evaluate(
        """async () => {
          const blocked = [];
          document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
          new Image().src = "http://127.0.0.1:9/x.png";
          await fetch("http://127.0.0.1:9/").catch(() => {});
          const script = document.createElement("script");
          script.textContent = "window.hit = 9";
          document.head.append(script);
          await new Promise((resolve) => setTimeout(resolve, 100));
          return [blocked.sort(), window.hit ?? null];
        }"""
    )
    assert blocked == [["connect-src", "img-src", "script-src-elem"], None]
    page.close()
