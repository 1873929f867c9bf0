"""How the report looks, and how fast it is with many images, in a real browser, and the figures: `make test-browser`.

Screenshots of its states are left in build/screenshots, for people to look at.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from browsing import DESKTOP, PHONE, SCREENSHOTS, SECTIONS, Open, shoot, turn_to
from PIL import Image
from report_folders import leave_maps, leave_photographs

from igos_bench.animate import animate
from igos_bench.figure import draw
from igos_bench.report import write_report

pytestmark = pytest.mark.browser


CONTRASTS = """() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("script, style, option, :disabled")) continue;
    const style = getComputedStyle(element);
    const text = element instanceof SVGElement ? style.fill : style.color;
    const [dark, light] = [luminance(parse(text)), luminance(ground(element))].sort((a, b) => a - b);
    found.push([(light + 0.05) / (dark + 0.05), walker.currentNode.data.trim().slice(0, 30)]);
  }
  return found;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(report: Path, open_page: Open, theme: str) -> None:
    page = open_page(report, "areas", theme=theme)
    seen = 0
    for section in SECTIONS:
        turn_to(page, section)
        found = page.evaluate(CONTRASTS)
        seen += len(found)
        assert [text for text in found if text[0] < 4.5] == []
    turn_to(page, "images")
    page.locator(".row").first.click()
    page.wait_for_selector("#curves svg")
    found = page.evaluate(CONTRASTS)
    assert [text for text in found if text[0] < 4.5] == []
    assert seen > 300


GRAPHICS = CONTRASTS.replace(
    CONTRASTS[CONTRASTS.index("const walker") : CONTRASTS.index("return found")],
    """
    const ratio = (a, b) => {
      const [dark, light] = [luminance(parse(a)), luminance(parse(b))].sort((a, b) => a - b);
      return (light + 0.05) / (dark + 0.05);
    };
    for (const [selector, property] of Object.entries({
      "button, select, input[type=search]": "borderTopColor",
      ".bars rect": "fill",
      ".frame, .curve, .here, line.zero, svg.deletion line, svg.insertion line": "stroke",
      ".bars rect.light": "explaining",
    })) {
      for (const element of document.querySelectorAll(selector)) {
        const style = getComputedStyle(element);
        if (!element.checkVisibility() || (property === "borderTopColor" && style.borderTopWidth === "0px")) continue;
        found.push([
          property === "explaining"
            ? ratio(style.fill, getComputedStyle(element.previousElementSibling).fill)
            : ratio(style[property], `rgb(${ground(element)})`),
          `${element.outerHTML.slice(0, 60)} ${property}`,
        ]);
      }
    }
    """,
)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_graphics_and_controls_have_the_contrast_of_wcag_aa(report: Path, open_page: Open, theme: str) -> None:
    """Success criterion 1.4.11: 3:1 to what is beside them."""
    page = open_page(report, "areas", theme=theme)
    found = []
    for section in SECTIONS:
        turn_to(page, section)
        if section == "images":
            page.wait_for_selector(".row.chosen .frame")
        found += page.evaluate(GRAPHICS)
    turn_to(page, "images")
    page.locator(".row").first.click()
    page.wait_for_selector("#curves svg")
    found += page.evaluate(GRAPHICS)
    assert sorted(text for text in found if text[0] < 3) == []
    for part in ("<button", "<select", "<input", "rect", "light", "explaining", "zero", "frame", "here"):
        assert any(part in text for _, text in found), part


@pytest.mark.parametrize("section", SECTIONS)
def test_it_fits_a_phone(report: Path, open_page: Open, section: str) -> None:
    page = open_page(report, section, size=PHONE)
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    if section == "images":
        boxes = (
            page.locator(".row")
            .first.locator("xpath=*")
            .evaluate_all(
                "parts => parts.filter((part) => part.checkVisibility() && part.textContent !== '')"
                ".map((part) => ({ text: part.textContent, ...part.getBoundingClientRect().toJSON() }))"
            )
        )
        row = page.locator(".row").first.bounding_box()
        assert row
        numbers = page.locator(".row").first.locator(".number:not(.resolution)")
        named = numbers.evaluate_all(
            "parts => parts.map((part) => [getComputedStyle(part, '::before').content, part.getBoundingClientRect().x])"
        )
        assert [name for name, _ in named] == ['"Del. "', '"Ins. "', '"Ins. \N{MINUS SIGN} del. "']
        assert [at for _, at in named] == sorted(at for _, at in named), "in the order of the table"
        assert numbers.evaluate_all("parts => parts.every((part) => part.scrollWidth <= part.clientWidth + 1)")
        for i, one in enumerate(boxes):
            assert one["top"] >= row["y"] and one["bottom"] <= row["y"] + row["height"] and one["right"] <= PHONE[0]
            for other in boxes[i + 1 :]:
                apart = (
                    one["right"] <= other["left"]
                    or other["right"] <= one["left"]
                    or one["bottom"] <= other["top"]
                    or other["bottom"] <= one["top"]
                )
                assert apart, f"{one} and {other} lie over one another"
        page.locator(".row").first.click()
        page.wait_for_selector("#curves svg")
        assert page.evaluate("viewer.scrollWidth <= viewer.clientWidth")
        # The slider, its pictures and its points are in sight together.
        for part in ("#step", "#deleted", "#inserted", "#curves"):
            box = page.locator(part).bounding_box()
            assert box and box["y"] >= 0 and box["y"] + box["height"] <= PHONE[1], part


def test_dark_and_light(report: Path, open_page: Open) -> None:
    page = open_page(report, theme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    assert page.inner_text("#theme") == "Light"
    page.click("#theme")
    light = page.evaluate(ground)
    assert light != dark and page.inner_text("#theme") == "Dark"
    page.reload()
    assert page.evaluate(ground) == light, "what was chosen stays"
    assert open_page(report, theme="light").evaluate(ground) == light


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("device", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_screenshots(report: Path, open_page: Open, device: str, size: tuple[int, int], theme: str) -> None:
    page = open_page(report, "areas", size=size, theme=theme)
    for section in SECTIONS:
        turn_to(page, section)
        shoot(page, f"{device}-{theme}-{section}")
    turn_to(page, "images")
    page.locator(".row").first.click()
    page.wait_for_selector("#curves svg")
    shoot(page, f"{device}-{theme}-viewer")
    assert len(list(SCREENSHOTS.glob(f"{device}-{theme}-*.png"))) == len(SECTIONS) + 1


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of three cells on 5,000 images."""
    folder = tmp_path_factory.mktemp("large")
    leave_photographs(folder / "images", [f"{i % 10}/image{i:04}.png" for i in range(5000)], size=32)
    for method, resolution in (("igos", 28), ("igos", 14), ("mask", 28)):
        leave_maps(folder / "results", folder / "images", method, resolution, chunk_size=250)
    return write_report(folder / "results")[0]


def test_5000_images_open_fast_and_scroll_smoothly(large: Path, open_page: Open) -> None:
    page = open_page(large, "images")
    page.wait_for_selector(".row .curve")  # its picture has been loaded
    opened = page.evaluate("performance.now()") / 1000  # since the page was asked for
    assert page.inner_text("#count") == "5,000 images, 15,000 maps"

    frames, work, rows = page.evaluate(
        """async () => {
          const [frames, work] = [[], []];
          let rows = 0;
          let last = performance.now();
          for (let i = 0; i < 200; i++) {
            scrollBy(0, 350);
            const begun = performance.now();
            draw();
            work.push(performance.now() - begun);
            await new Promise(requestAnimationFrame);
            frames.push(performance.now() - last);
            last = performance.now();
            rows = Math.max(rows, document.querySelectorAll(".row").length);
          }
          return [frames, work, rows];
        }"""
    )
    jump = page.evaluate(
        """async () => {
          const begun = performance.now();
          scrollTo(0, document.body.scrollHeight / 2);
          for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
          return performance.now() - begun;
        }"""
    )
    sort = page.evaluate(
        "() => { const begun = performance.now(); sortBy('Deletion', true); return performance.now() - begun }"
    )
    print(
        f"\n5,000 images, 15,000 maps: open in {opened:.2f} s; 200 frames of scrolling by 350 pixels each, median "
        f"{np.median(frames):.1f} ms, of which rows {np.median(work):.1f} ms (95th percentiles "
        f"{np.percentile(frames, 95):.1f} and {np.percentile(work, 95):.1f}); {rows} rows at most; jump to the middle "
        f"{jump:.0f} ms; sorted in {sort:.0f} ms"
    )
    assert opened < 3
    assert rows < 40, "only what is seen is drawn"
    assert np.percentile(work, 95) < 16.7, "rows leave time for a frame of a 60 Hz screen"
    assert np.median(frames) < 50 and sort < 1000


def test_figures_and_a_film(report: Path) -> None:
    """Every kind, beside the screenshots, for people to look at."""
    words = ["image=3/plain02.png", f"results_dir={report.parent}"]
    paths = [
        *draw(["kind=curves", "methods=[mask,rise]", *words]),
        *draw(["kind=resolutions", "width=3.3", *words]),
        *draw(["kind=perturbed", "methods=[mask]", *words]),
        *draw(["kind=scatter", "allow_partial=true", words[1]]),
        *draw(["kind=time", "allow_partial=true", words[1]]),
        animate(["method=mask", *words]),
    ]
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copy(path, SCREENSHOTS / f"figure-{path.name}")
    for path in [path for path in paths if path.suffix == ".png"]:
        with Image.open(path) as image:
            assert image.width == (990 if path.stem in ("scatter", "time") or "resolutions" in path.name else 2100)
