"""What is marked beside a number, because its reader should know of it. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .methods import installed_version

MARKS = {
    "incomplete": ("!", "lacks images"),
    "dirty": ("†", "was computed, all or in part, by code with uncommitted changes"),
    "changed": ("‡", "was computed by another version of its method than the one that is installed"),
}
"""Word in table.csv -> its sign beside a number, and what a cell with it does or did."""


def marks_of_run(run: Mapping[str, Any]) -> tuple[str, ...]:
    """The words for the code of a run, from its run.json; of what is not known there, none."""
    installed, version = installed_version(run["method"]), run.get("method_version")
    is_dirty = any((code.get("git") or {}).get("dirty") for code in [run, *run.get("continued", [])])
    is_changed = None not in (installed, version) and installed != version
    return ("dirty",) * is_dirty + ("changed",) * is_changed


def signs(words: str) -> str:
    """Of words with spaces between, ready to be put behind a number; empty where there are none."""
    return "".join(f" {MARKS[word][0]}" for word in words.split())


def footnotes(columns: Iterable[str]) -> Sequence[str]:
    """A sentence for each mark that occurs in a table's column `marks`."""
    there = {word for words in columns for word in words.split()}
    return [f"A cell marked with {sign} {what}." for word, (sign, what) in MARKS.items() if word in there]
