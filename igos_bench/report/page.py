"""The page: sections from the templates, the numbers of its gallery, style and scripts, in one file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..atomic import write_atomically
from ..cells import GROUP, Cell, readable_cells
from ..errors import UserError
from ..marks import footnotes
from ..paths import is_folder
from ..provenance import now

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = (
    "data.js",
    "themes.js",
    "tables.js",
    "pictures.js",
    "curves.js",
    "viewer.js",
    "gallery.js",
    "extremes.js",
    "sections.js",
)
"""In the order in which the page runs them."""


def write_report(results_dir: Path) -> tuple[Path, list[str]]:
    """Write `results_dir`/report.html and the pictures beside it, in report_files/.

    Returns:
        The page, and what is missing in it, for people.

    Raises:
        UserError: There is no such folder, or no jinja2.
    """
    if not is_folder(results_dir):
        raise UserError(f"results_dir={results_dir} is no folder: say results_dir=FOLDER, the one that holds runs/")
    if find_spec("jinja2") is None:
        raise UserError("the report is made by jinja2, which is not installed: pip install igos-bench[report]")
    from .gallery import Gallery

    cells, troubles = readable_cells(results_dir)
    gallery = Gallery(cells)
    with tqdm(total=len(gallery.images), unit="image", disable=None) as bar:
        gallery.write_files(results_dir / "report_files", bar.update)
    troubles += gallery.troubles
    path = results_dir / "report.html"
    write_atomically(path, render(results_dir, cells, troubles, gallery.data()).encode())
    return path, troubles


def render(results_dir: Path, cells: Sequence[Cell], troubles: Sequence[str], data: dict[str, Any]) -> str:
    """The page as HTML; every text in it is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from . import sections

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    groups = [list(group) for _, group in groupby(cells, key=lambda cell: tuple(getattr(cell, key) for key in GROUP))]
    return environment.get_template("report.html").render(
        name=results_dir.resolve().name,
        folder=str(results_dir.resolve()),
        made=now(),
        version=version("igos-bench"),
        images=len(data["ids"]),
        troubles=troubles,
        groups=[
            {
                "name": name,
                "areas": sections.areas(group),
                "differences": sections.differences(group),
                "times": sections.times(group),
                "failures": sections.failures(group),
            }
            for name, group in zip(data["groups"], groups, strict=True)
        ],
        marks=footnotes(cell.marks for cell in cells),
        provenance=list(sections.provenance(cells)),
        width=sections.WIDTH,
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        data=Markup(embedded(data)),
        policy=policy(script),
    )


def embedded(data: Any) -> str:
    """JSON that may stand inside a script element, whatever its texts are: ASCII without `<`, `>` and `&`."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def policy(script: str) -> str:
    """What the page may do: run its own script, and load what lies beside it. Nothing of the network."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}' 'self' file:; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
