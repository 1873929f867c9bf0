"""The commands that read what runs left on disk, from `table` to `status`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError, say, tell, unknown

if TYPE_CHECKING:
    from .cells import Cell


def _show(words: list[str]) -> None:
    from .show import find_run, shown

    options = [word.removeprefix("results_dir=") for word in words if word.startswith("results_dir=")]
    asked = [word for word in words if not word.startswith("results_dir=")]
    if len(asked) != 1:
        raise UserError(
            f"`show` takes one RUN_KEY, the first digits of one or a run's folder, found {' '.join(asked) or 'none'}: "
            "the last column of `igos-bench table` has the keys"
        )
    say(shown(find_run(asked[0], Path(options[-1] if options else "results"))))


def _status(words: list[str]) -> None:
    from .status import look, printed

    results_dir = Path(_read_words(words, ["results_dir"])["results_dir"])
    say(printed(look(results_dir), results_dir))


def _report(words: list[str]) -> None:
    from .report import write_report

    path, missing = write_report(Path(_read_words(words, ["results_dir"])["results_dir"]))
    for trouble in missing:
        tell(trouble)
    pictures = path.parent / "report_files"
    say(f"written to {path}" + (f", with its pictures in {pictures}" if any(pictures.glob("*.js")) else ""))


def _read_words(words: list[str], known: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE of commands that read what is on disk; raises UserError for another key."""
    options = dict(word.partition("=")[::2] for word in words)
    for key in options:
        if key not in known:
            raise UserError(unknown("key", key, known))
    return {"results_dir": "results", **options}


def _figure(words: list[str]) -> None:
    from .figure import draw

    say(f"written to {', '.join(map(str, draw(words)))}")


def _animate(words: list[str]) -> None:
    from .animate import animate

    say(f"written to {animate(words)}")


def _table(words: list[str]) -> None:
    from .cells import MEANS

    _write(words, MEANS, _write_table)  # which images they are, a table does not ask


def _compare(words: list[str]) -> None:
    from .cells import MEANS

    _write(words, ("image_id", *MEANS), _write_comparison)


def _write(words: list[str], columns: Sequence[str], write: Callable[[list[Cell], Path], list[Path]]) -> None:
    """Read the cells that are there, and write and print what is made of these columns of their rows."""
    from .cells import read_cells

    options = _read_words(words, ["results_dir", "allow_partial"])
    allow_partial = options.get("allow_partial", "false")
    if allow_partial not in ("true", "false"):
        raise UserError(f"allow_partial={allow_partial}: write true or false")
    results_dir = Path(options["results_dir"])
    cells = read_cells(results_dir, allow_partial=allow_partial == "true", columns=columns)
    partial = sum(not cell.complete for cell in cells)
    say(f"\nwritten to {', '.join(map(str, write(cells, results_dir)))}")
    if partial:
        tell(f"{partial} of {len(cells)} cells are incomplete")


def _write_table(cells: list[Cell], results_dir: Path) -> list[Path]:
    from .atomic import write_atomically
    from .layout import latex, markdown
    from .table import make_table, printed, write_csv

    table = make_table(cells)
    say(printed(table))
    say("\npaper: Table 1 of the I-GOS paper, VGG19 on 5,000 ImageNet validation images")
    paths = [results_dir / f"table.{kind}" for kind in ("csv", "md", "tex")]
    write_csv(table, paths[0])
    write_atomically(paths[1], markdown(table).encode())
    write_atomically(paths[2], latex(table).encode())
    return paths


def _write_comparison(cells: list[Cell], results_dir: Path) -> list[Path]:
    from .compare import compare, printed
    from .table import write_csv

    comparison = compare(cells)
    say(printed(comparison))
    write_csv(comparison, results_dir / "comparison.csv")
    return [results_dir / "comparison.csv"]


READERS: Mapping[str, Callable[[list[str]], None]] = {
    "table": _table,
    "compare": _compare,
    "figure": _figure,
    "animate": _animate,
    "report": _report,
    "show": _show,
    "status": _status,
}
"""Command -> what it does with its words; raises UserError."""
