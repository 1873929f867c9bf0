"""What a person sees of a run: its first line, its progress, its summary."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from tqdm import tqdm

from .config import Timing
from .errors import one_line, say, tell
from .formats import Row
from .prepare import Run
from .rows import failed_rows, numbers
from .runner import Outcome
from .shard import Shard

SHOWN = ("deletion_auc", "insertion_auc", "explain_seconds", "score_seconds")
"""Columns of a row whose means are shown while a run goes on."""


def print_header(command: str, run: Run) -> None:
    """Say what runs, on what."""
    config = run.config
    single = " timing=single" if config.timing is Timing.single else ""
    maps = f" maps={run.maps.folder}" if run.maps else ""
    shard = f" shard={part}" if (part := run.shard) else ""
    say(
        f"{command}: method={run.method.name} resolution={config.resolution} model={run.classifier.name} "
        f"data={run.manifest.name} ({len(run.images)} images) protocol={run.protocol.name} "
        f"device={run.device} precision={config.precision.value} seed={config.seed}{single}{maps}{shard}"
    )


class Progress:
    """A bar with running means on a terminal, else a line a chunk; called with images done and their rows."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self.total = 0
        self.count = 0
        self.sums = dict.fromkeys(SHOWN, 0.0)  # of the numbers of all rows so far: of a million, none is kept
        self.counts = dict.fromkeys(SHOWN, 0)
        self.called = False
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=0, unit="image", smoothing=0, disable=not self.terminal)

    def expect(self, total: int) -> None:
        """So many images are wanted."""
        self.total = self.bar.total = total

    def __call__(self, count: int, rows: Sequence[Row]) -> None:
        """The first call brings what an earlier run left, the others a chunk each."""
        resumed, self.called = not self.called, True
        self.count += len(rows)
        for key in SHOWN:
            values = numbers(rows, key)
            self.sums[key] += sum(values.tolist())
            self.counts[key] += len(values)
        if resumed and count:
            say(f"resumed {count}/{self.total}")
            self.bar.initial = count  # so that the rate is that of this run
        self.bar.update(count)
        if not self.counts["deletion_auc"] or not count:
            return
        deletion, insertion, *spent = (self.sums[key] / max(1, self.counts[key]) for key in SHOWN)
        means = f"deletion {deletion:.4f}, insertion {insertion:.4f}"
        self.bar.set_postfix_str(f"{means}, {sum(spent):.2f} s an image")
        if not self.terminal and not resumed:
            seconds = {
                "explaining": mean(rows, "explain_seconds"),
                "scoring": mean(rows, "score_seconds"),
            }
            times = ", ".join(f"{s:.2f} s {what}" for what, s in seconds.items() if not math.isnan(s))
            say(f"{self.count}/{self.total} images: {means}{f'; {times} an image' * bool(times)}")

    def tell(self, message: str) -> None:
        """A line that is no progress."""
        self.bar.write(f"igos-bench: {one_line(message)}", file=sys.stderr)

    def close(self) -> None:
        """End the bar's line."""
        self.bar.close()


def print_summary(outcome: Outcome, shard: Shard) -> int:
    """Print what came out; return the exit code, 3 where an image failed, of this shard's in the case of one."""
    rows = outcome.rows
    failed = failed_rows(rows)
    if done := len(rows) - len(failed):
        for key, better in (("deletion", "lower"), ("insertion", "higher")):
            centre, error = mean(rows, f"{key}_auc"), standard_error(rows, f"{key}_auc")
            spread = f" ± {error:.4f} (standard error, {done} images" if done > 1 else " (1 image"
            say(f"{key:10}{centre:.4f}{spread}; {better} is better)")
        explain, score = mean(rows, "explain_seconds"), mean(rows, "score_seconds")
        explained = not math.isnan(explain)  # else the maps were there already
        say(f"seconds   {f'{explain:.2f} explaining, ' if explained else ''}{score:.2f} scoring an image")
        if explained:
            passes = mean(rows, "forwards"), mean(rows, "backwards")
            say(f"passes    {passes[0]:.1f} forward, {passes[1]:.1f} backward explaining an image")
    say(f"maps      {outcome.directory / 'maps'}\nrecords   {outcome.records}")
    if shard:
        say(f"shard     {_said_of_shard(outcome, shard)}")
    if outcome.whole is not None:
        say("next      `igos-bench table` makes the table of all runs")
    for row in failed:
        print(one_line(f"failed    {row['image_id']}: {row.get('error')}"), file=sys.stderr)
    if failed:
        tell(f"{len(failed)} of {len(rows)} images failed; the same command tries them again")
    return 3 if failed else 0


def _said_of_shard(outcome: Outcome, shard: Shard) -> str:
    """What the numbers are of, and whether the cell is complete."""
    text = f"{shard} has been through its {len(outcome.rows)} images, of which the numbers above are; "
    if outcome.whole is None:
        return f"{text}others of the cell are still missing: the other shards compute them"
    count, lost = len(outcome.whole), len(failed_rows(outcome.whole))
    failed = f", of which {lost} failed" if lost else ""
    return f"{text}so have all other shards: the cell has its {count} images{failed}"


def mean(rows: Sequence[Row], key: str) -> float:
    """Of the rows that are ok and have the number; NaN where none has."""
    values = numbers(rows, key)
    return sum(values.tolist()) / len(values) if len(values) else float("nan")


def standard_error(rows: Sequence[Row], key: str) -> float:
    """Of that mean; NaN below two numbers."""
    values = numbers(rows, key)
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
