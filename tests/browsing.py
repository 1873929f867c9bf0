"""A browser for the tests, Debian's chromium driven by playwright, and what is asked of a report in it."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, Request, sync_playwright
from report_folders import HOSTILE, leave_photographs

SECTIONS = ("areas", "differences", "time", "images", "extremes", "failures", "provenance")
DESKTOP, PHONE = (1360, 860), (390, 844)
SCREENSHOTS = Path(__file__).parent.parent / "build" / "screenshots"

Open = Callable[..., Page]


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium",
            args=["--no-sandbox"],  # which root cannot have; the page is our own
        )
        yield browser
        browser.close()


@contextmanager
def faultless(browser: Browser) -> Iterator[Open]:
    """Opens pages; in the end nothing may have been said on their consoles, nor loaded from elsewhere."""
    faults: list[str] = []
    contexts = []

    def opened(path: Path, section: str = "", size: tuple[int, int] = DESKTOP, theme: str = "light") -> Page:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        ours = (path.as_uri(), f"{path.parent.as_uri()}/report_files/", "data:image/jpeg;base64,")

        def check(request: Request) -> None:
            if not request.url.startswith(ours):
                faults.append(f"request: {request.url}")

        page.on("request", check)
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        page.goto(f"{path.as_uri()}#{section}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def photographs(root: Path) -> None:
    """Twenty, of two classes: 3, which all of them are taken for, and 7."""
    leave_photographs(root, [*HOSTILE, *(f"{3 if i % 3 else 7}/plain{i:02}.png" for i in range(16))])


def turn_to(page: Page, section: str) -> None:
    """By its link; what is there comes with the event after the click."""
    page.click(f"nav a[href='#{section}']")
    page.locator(f"section#{section}").wait_for()


def column(page: Page, selector: str) -> list[str]:
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


def shoot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(300)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def canvas(page: Page, selector: str) -> np.ndarray:
    """The pixels of an opaque canvas, (H, W, 3)."""
    text = page.eval_on_selector(selector, "canvas => canvas.toDataURL('image/png')")
    content = base64.b64decode(text.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def view(page: Page, image_id: str, method: str, resolution: int) -> None:
    """Find an image in a cell and open it."""
    page.fill("[name=query]", image_id)
    page.select_option("[name=method]", method)
    page.select_option("[name=resolution]", str(resolution))
    page.locator(".row").first.click()
    page.wait_for_selector("#curves svg")


def slide(page: Page, selector: str, value: float) -> None:
    page.eval_on_selector(selector, f"slider => {{ slider.value = {value}; slider.dispatchEvent(new Event('input')) }}")
