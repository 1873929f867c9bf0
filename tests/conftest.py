"""Shared by the tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from igos_bench.results import RunDirectory

sys.path.insert(0, str(Path(__file__).parent))

# The same examples each time, so that a commit passes or does not; `--hypothesis-profile=default` looks for others.
settings.register_profile("the same each time", derandomize=True)
settings.load_profile("the same each time")

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def igos_bench(tmp_path: Path) -> Command:
    """Runs the real command line in a folder of its own."""
    from forked import run_igos_bench

    def run(*words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return run_igos_bench(words, tmp_path, timeout=timeout)

    return run


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from browsing import chromium

    with chromium() as opened:
        yield opened


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page that has to be faultless until the end of the test."""
    from browsing import faultless

    with faultless(browser) as opened:
        yield opened


@pytest.fixture(scope="session")
def shown_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDirectory]:
    """The page of six cells on twenty images, and the folder of its first cell."""
    from browsing import photographs
    from report_folders import leave_maps

    from igos_bench.report import write_report

    folder = tmp_path_factory.mktemp("report")
    photographs(folder / "images")
    results = folder / "results"
    first = leave_maps(results, folder / "images", "igos", 28, failed=[1], parameters={"note": "<i>one</i>"})
    leave_maps(results, folder / "images", "igos", 14, parameters={"note": "<i>one</i>"})
    leave_maps(results, folder / "images", "igos", 28, parameters={"note": "two</script>"})
    leave_maps(results, folder / "images", "mask", 224, done=12)
    leave_maps(results, folder / "images", "mask", 28)
    leave_maps(results, folder / "images", "rise", 7)  # which the paper has no numbers of
    return write_report(results)[0], first


@pytest.fixture(scope="session")
def report(shown_run: tuple[Path, RunDirectory]) -> Path:
    return shown_run[0]
