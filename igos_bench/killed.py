"""Jobs of sweeps that Slurm killed, from the logs where the sweep's launcher puts them. Needs no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from .errors import one_line
from .paths import below

KILLED = re.compile(
    rb"^(?:slurmstepd|srun)\S*: error: .*(?:CANCELLED AT|oom.kill|Out Of Memory|: Killed|Node failure).*$", re.MULTILINE
)
"""What Slurm says in the log of a job that it kills: over its time or memory, cancelled, preempted."""

HEADER = re.compile(rb"^(?:run|score): (method=.*)$", re.MULTILINE)
"""What a job says first itself, see `console.print_header`."""

LOOKED_AT = 2**16
"""Bytes at the beginning or end of a log."""


def killed_jobs(results_dir: Path, is_complete: Callable[[Mapping[str, str]], bool], most: int) -> Iterator[str]:
    """A line for each, latest first, of at most so many.

    A job that comes to its end leaves its result beside its log. One whose cell is complete, as another job has gone on
    with it, is left out.

    Args:
        results_dir: Of the sweeps.
        is_complete: Says it of the cell that a job has named, by the words of its first line.
        most: Lines, but for one that says that there are more.
    """
    logs = []
    for log in below(results_dir, "sweeps/*/*/*_log.err"):
        if not log.with_name(log.name.replace("_log.err", "_result.pkl")).exists():
            logs.append((log.stat().st_mtime, log))
    shown = 0
    for moment, log in sorted(logs, reverse=True):
        said = {line.partition(b":")[0]: line for line in KILLED.findall(_end(log))}  # the last of each program
        cell = _cell(log.with_name(log.name.replace("_log.err", "_log.out")))
        if not said or is_complete(cell):
            continue
        if shown == most:
            yield f"killed: and others before, see {results_dir / 'sweeps'}"
            return
        shown += 1
        when = datetime.fromtimestamp(moment).strftime("%Y-%m-%d_%H-%M-%S")
        told = b"; ".join(said.values()).decode(errors="replace")
        yield f"killed: {when} job {log.parent.name}{_named(cell)}: {one_line(told)} ({log})"


def _end(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOOKED_AT))
        return file.read()


def _cell(log: Path) -> dict[str, str]:
    """The words with which a job has named its cell; none where it was killed before."""
    try:
        with log.open("rb") as file:
            found = HEADER.search(file.read(LOOKED_AT))
    except OSError:
        return {}
    words = found[1].decode(errors="replace").split() if found else []
    return {key: value for key, equals, value in (word.partition("=") for word in words) if equals}


def _named(cell: Mapping[str, str]) -> str:
    if not {"method", "resolution", "model", "data", "protocol", "seed"} <= cell.keys():
        return ""
    shard = f", shard {cell['shard']}" if "shard" in cell else ""
    where = f"{cell['method']} at {cell['resolution']} on {cell['model']}, {cell['data']}, under {cell['protocol']}"
    return one_line(f", {where} with seed {cell['seed']}{shard}")
