"""The command `figure`: what is asked for, the cells that it is of, and its two files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .atomic import write_atomically
from .cells import GROUP, MEANS, Cell, read_cells
from .composing import parse
from .errors import UserError, unknown
from .table import make_table

KINDS = ("scatter", "time")
WIDTHS = (2.0, 20.0)  # inches: narrower, and labels meet


@dataclass(frozen=True)
class Asked:
    """The words after `figure`: `methods` and `model`, `data`, `protocol` choose cells, None takes them all."""

    kind: str
    methods: Sequence[str] | None = None
    model: str | None = None
    data: str | None = None
    protocol: str | None = None
    width: float = 3.3
    results_dir: str = "results"
    allow_partial: bool = False


def read_asked(words: Sequence[str]) -> Asked:
    """The words, checked; raises UserError."""
    found: dict[str, Any] = {}
    keys = list(Asked.__dataclass_fields__)
    for override in parse(words):
        if override.key_or_group not in keys:
            raise UserError(unknown("key", override.key_or_group, keys))
        found[override.key_or_group] = override.value()
    if found.get("kind") not in KINDS:
        there = unknown("kind", str(found["kind"]), KINDS) if "kind" in found else "say which figure, kind="
        raise UserError(there if "kind" in found else f"{there}{' or kind='.join(KINDS)}")
    methods = found.get("methods")
    if methods is not None:
        found["methods"] = [str(method) for method in (methods if isinstance(methods, list) else [methods])]
    width = found.get("width", Asked.width)
    if isinstance(width, bool) or not isinstance(width, int | float) or not WIDTHS[0] <= width <= WIDTHS[1]:
        raise UserError(
            f"width={width}: give inches from {WIDTHS[0]:g} to {WIDTHS[1]:g}; a column has 3.3, a page of two columns 7"
        )
    if not isinstance(found.get("allow_partial", False), bool):
        raise UserError(f"allow_partial={found['allow_partial']}: write true or false")
    found |= {key: str(found[key]) for key in (*GROUP, "results_dir") if key in found}
    return Asked(**found)


def draw(words: Sequence[str]) -> list[Path]:
    """Draw what the words ask for into results_dir/figures, as PNG and PDF.

    Raises:
        UserError: A word is mistyped; there is nothing to draw, or more than one figure's worth; no matplotlib.
    """
    asked = read_asked(words)
    if find_spec("matplotlib") is None:
        raise UserError("figures are drawn by matplotlib, which is not installed: pip install igos-bench[report]")
    results_dir = Path(asked.results_dir)
    table = make_table(chosen(read_cells(results_dir, allow_partial=asked.allow_partial, columns=MEANS), asked))
    if asked.kind == "time" and not (table["explain_seconds"] > 0).any():
        raise UserError("no cell has seconds: their maps were made elsewhere; kind=scatter draws their areas")

    from .draw import areas
    from .draw.style import saved, style

    with style():
        figure = {"scatter": areas.scatter, "time": areas.time}[asked.kind](table, asked.width)
        contents = {kind: saved(figure, kind) for kind in ("png", "pdf")}
    paths = [results_dir / "figures" / f"{asked.kind}.{kind}" for kind in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomically(path, content)
    return paths


def chosen(cells: Sequence[Cell], asked: Asked) -> list[Cell]:
    """The cells of one model, data set and protocol that are asked for, with rows; raises UserError."""
    for key in GROUP:
        there = list(dict.fromkeys(getattr(cell, key) for cell in cells))
        value = getattr(asked, key)
        if value is not None and value not in there:
            raise UserError(unknown(key, value, there))
        if value is None and len(there) > 1:
            raise UserError(f"the runs are of several, {', '.join(there)}, which do not compare: say {key}={there[0]}")
        cells = [cell for cell in cells if value in (None, getattr(cell, key))]
    methods = list(dict.fromkeys(cell.method for cell in cells))
    for method in asked.methods or []:
        if method not in methods:
            raise UserError(unknown("method", method, methods))
    found = [cell for cell in cells if asked.methods is None or cell.method in asked.methods]
    if not (drawn := [cell for cell in found if cell.n and not math.isnan(cell.rows["deletion_auc"].mean())]):
        raise UserError("none of the cells that were asked for has an image that is done: there is nothing to draw")
    return drawn
