"""How far the runs of a results folder are: done, running, failed, hours left. From files alone; needs no torch.

It shows what was begun; `plan` shows what was asked for too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .counted import Counted, columns
from .errors import UserError, one_line
from .formats import read_json
from .killed import killed_jobs
from .lease import Holder, Leases
from .paths import below
from .results import run_files
from .tally import tally

SHOWN = 5
"""Reasons of a cell, and logs, that are shown."""


@dataclass(frozen=True)
class Progress(Counted):
    """One cell.

    Attributes:
        run_key: As `show` takes it.
        seed: Of the run, and its precision.
        failed: Reason -> how many images.
        processes: That work on it now.
        seconds: An image by one process; None where none is done.
    """

    run_key: str
    seed: int
    precision: str
    failed: Counter[str]
    processes: int
    seconds: float | None

    @property
    def said(self) -> dict[str, str]:
        """What its jobs say of it in their first line, see `console.print_header`; others may say the same."""
        names = ("method", "resolution", "model", "data", "protocol", "seed", "precision")
        return {name: str(getattr(self, name)) for name in names}

    @property
    def state(self) -> str:
        """In a word."""
        if self.left == 0:
            return "complete"
        if self.processes:
            return "running"
        return "failed" if self.left <= self.failed.total() else "stopped"

    @property
    def rate(self) -> float:
        """Images a second by all its processes; 0 where none runs or no time is known."""
        return self.processes / self.seconds if self.seconds else 0.0

    @property
    def work(self) -> float | None:
        """Seconds that one process would take for the rest; None where no time is known."""
        return 0.0 if self.left == 0 else None if self.seconds is None else self.left * self.seconds


def look(results_dir: Path) -> list[Progress]:
    """Every run under `results_dir`/runs, once for each protocol under which it was scored.

    Raises:
        UserError: There are none, or a run.json is damaged.
    """
    found = [cell for path in run_files(results_dir) for cell in _cells(path)]
    if not found:
        where = f"no runs under {results_dir / 'runs'}: say results_dir=FOLDER, or make one with `igos-bench`"
        raise UserError("; ".join([where, *_logs(results_dir), *_killed(found, results_dir)]))
    return found


def _cells(path: Path) -> Iterator[Progress]:
    run, listing = read_json(path) or {}, path.parent / "images.txt"
    requested = listing.read_bytes().count(b"\n") if listing.exists() else run["requested"]
    processes = len({(holder.host, holder.process) for holder in _alive(path.parent / "leases")})
    for folder in sorted(path.parent.glob("*-*/")) or [path.parent / f"{run['protocol']}-"]:
        rows = tally(folder)
        yield Progress(
            method=run["method"],
            resolution=run["resolution"],
            model=run["model"],
            data=run["data"],
            protocol=folder.name.rpartition("-")[0],
            requested=requested,
            done=rows.done,
            run_key=run["map_key"],
            seed=run["config"]["seed"],
            precision=run["config"]["precision"],
            failed=rows.failed,
            processes=processes if rows.done < requested else 0,
            seconds=rows.seconds / rows.done if rows.done else None,
        )


def _alive(folder: Path) -> Iterator[Holder]:
    """Who holds leases and has given a sign of life, by this machine's clock.

    Runs themselves compare no clocks, and wait instead: here a glance must do, and nothing is decided by it.
    """
    leases = Leases(folder, 300)
    for place in folder.glob("[!.]*"):
        holder = leases.holder(place.name)
        if holder and not holder.is_dead and time.time() - holder.stamp / 1e9 < (holder.seconds or leases.seconds):
            yield holder


def printed(cells: Sequence[Progress], results_dir: Path) -> str:
    """The status for a terminal."""
    table = pd.DataFrame(
        {
            **columns(cells),
            "failed": [f"{cell.failed.total():,}" for cell in cells],
            "processes": [cell.processes for cell in cells],
            "images/s": [f"{cell.rate:.3g}" if cell.rate else "-" for cell in cells],
            "hours left": [_hours(cell.work, cell.processes) for cell in cells],
            "state": [cell.state for cell in cells],
            "run": [cell.run_key for cell in cells],
        }
    )
    told = [*_reasons(cells), *_logs(results_dir), *_killed(cells, results_dir)]
    return "\n".join([table.to_string(index=False), "", _sum(cells), *told])


def _hours(work: float | None, processes: int) -> str:
    return "?" if work is None else f"{work / max(1, processes) / 3600:.2f}"


def _sum(cells: Sequence[Progress]) -> str:
    states = Counter(cell.state for cell in cells)
    counted = ", ".join(f"{states[state]} {state}" for state in ("complete", "running", "stopped", "failed"))
    done, images = sum(cell.done for cell in cells), sum(cell.requested for cell in cells)
    processes = sum(cell.processes for cell in cells)
    known = sum(cell.work or 0.0 for cell in cells)
    unknown = sum(cell.work is None for cell in cells)
    text = f"{len(cells)} cells: {counted}; {done:,} of {images:,} images done; "
    if processes:
        text += f"{processes} process{'es' * (processes > 1)}, {sum(cell.rate for cell in cells):.3g} images a second; "
    text += f"{_hours(known, processes)} hours left for {processes or 1} such process{'es' * (processes > 1)}"
    text += f", and {unknown} cells of which no time is known" if unknown else ""
    return f"{text}\nwhat was not begun is not counted: `igos-bench plan -m ...` counts it, with the words of the sweep"


def _reasons(cells: Sequence[Progress]) -> Iterator[str]:
    for cell in cells:
        for reason, count in cell.failed.most_common(SHOWN):
            where = f"{cell.method} at {cell.resolution} on {cell.model}, {cell.data}, under {cell.protocol}"
            yield f"failed: {count:,} images of {where}: {one_line(reason)}"
        if (more := len(cell.failed) - SHOWN) > 0:
            yield f"failed: and for {more:,} other reasons; records.csv of that cell has them"


def _logs(results_dir: Path) -> Iterator[str]:
    """Cells of sweeps that broke, latest first; some may have been mended since, so that the moment is told."""
    logs = below(results_dir, "logs/*.txt")[::-1]
    for log in logs[:SHOWN]:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        yield f"broke: {log.stem}: {one_line(lines[-1] if lines else 'no story')} ({log})"
    if len(logs) > SHOWN:
        yield f"broke: and {len(logs) - SHOWN:,} times before, see {results_dir / 'logs'}"


def _killed(cells: Sequence[Progress], results_dir: Path) -> Iterator[str]:
    """Jobs that Slurm killed, but for those whose cell is complete: another job has gone on with it."""

    def is_complete(said: Mapping[str, str]) -> bool:
        mine = [cell for cell in cells if cell.said.items() <= said.items()]
        return bool(mine) and all(cell.left == 0 for cell in mine)

    return killed_jobs(results_dir, is_complete, SHOWN)
