"""Kills `igos-bench` again and again, starts it again each time, and compares what it leaves with an undisturbed run.

    python scripts/chaos.py [kills=50] [stops=12] [seed=0]

The real command on a small network with random weights and images that it writes itself, in three forms: a run, a sweep
(-m), and `score` on maps that are there. SIGKILL comes, in turn,

    anywhere    at a moment drawn from the whole time that the command takes undisturbed, its start-up among it
    writing     while a file is written: when the n-th one appears beside its place
    between     between the files of a chunk: when the n-th one has been renamed into its place
    decoding    to a thread beside the main one while an image is open. Images are decoded in threads, not in
                processes of their own: SIGKILL to one ends them all

and, besides these, SIGTERM and SIGINT come anywhere from the moment when they are listened for: they must end the
command within 5 s, with 143 or 130, without a traceback, and with a line that names the command to go on with; that is
what is started next. After each signal no file may be torn, and no chunk that was committed lost or computed again. At
the end maps, curves and rows must be those of the undisturbed run byte for byte, but for their seconds.

Prints its figures; exit code 1 where anything differs. Linux: it reads /proc.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from chaos_compare import committed, differences, torn
from chaos_moments import PATIENCE, Watched
from options import read_options
from PIL import Image

from igos_bench.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
IMAGES = 12
QUICK = (
    *("model=timm", "model.architecture=test_resnet", "model.weights=null", "device=cpu"),
    *("data=folder", "data.root=images", "chunk_size=2", "protocol.n_steps=4"),
    *("method=integrated_gradients", "method.steps=4", "resolution=224"),
)
FORMS = {"run": QUICK, "sweep": ("-m", *QUICK, "seed=0,1"), "score": ("score", *QUICK, "protocol=rise")}
KILLS = ("anywhere", "writing", "between", "decoding")
STOPS = {"SIGTERM": 143, "SIGINT": 130}
LONGEST_STOP = 5.0


class DifferentError(Exception):
    """What was found is not what an undisturbed run leaves, or a signal was not answered as it should be."""


@dataclass
class Options:
    """How many of each, and which moments."""

    kills: int = 50
    stops: int = 12
    seed: int = 0


@dataclass
class Figures:
    """What was done: signals by kind and form of the command, and what came of it."""

    signals: Counter[tuple[str, str]] = field(default_factory=Counter)
    left_unfinished: int = 0
    starts: int = 0
    whole_runs: int = 0
    slowest_stop: float = 0.0

    def __str__(self) -> str:
        """As a table and a line."""
        lines = ["".join(f"{word:>12}" for word in ("", *FORMS))]
        for kind in (*KILLS, *STOPS):
            lines.append("".join(f"{word:>12}" for word in (kind, *(self.signals[kind, form] for form in FORMS))))
        kills, stops = (sum(n for (kind, _), n in self.signals.items() if kind in kinds) for kinds in (KILLS, STOPS))
        lines.append(
            f"{kills} kills with SIGKILL, of which {self.left_unfinished} left a file that was being written; "
            f"{stops} SIGTERM and SIGINT, the slowest answered in {self.slowest_stop:.1f} s; "
            f"{self.starts} starts, {self.whole_runs} commands that came to their end"
        )
        return "\n".join(lines)


def main() -> int:
    """Kill, start again, compare; print the figures."""
    try:
        options = read_options(Options)
    except UserError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    started, figures, wrong = time.monotonic(), Figures(), ""
    with TemporaryDirectory() as folder:
        try:
            chaos(Path(folder), options, figures)
        except DifferentError as error:
            wrong = str(error)
    print(f"\n{figures}; {time.monotonic() - started:.0f} s, seed {options.seed}")
    print(
        f"DIFFERENT: {wrong}" if wrong else "the same: no file torn, no row lost or doubled, every byte as undisturbed"
    )
    return 1 if wrong else 0


@dataclass(frozen=True)
class Command:
    """A form of the command in a folder of its own for results; `folder` has the images."""

    form: str
    folder: Path
    results: Path

    @property
    def words(self) -> list[str]:
        """What stands after `igos-bench`."""
        return [*FORMS[self.form], f"results_dir={self.results}"]

    def start(self) -> subprocess.Popen[str]:
        """The real command, which hears Ctrl-C even where a shell told this process not to."""
        return subprocess.Popen(
            [sys.executable, "-m", "igos_bench", *self.words], cwd=self.folder, env=ENVIRONMENT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip


def chaos(folder: Path, options: Options, figures: Figures) -> None:
    """All of it, in this folder; raises DifferentError."""
    draw = random.Random(options.seed)
    write_images(folder / "images")
    for place, form in enumerate(FORMS):
        whole = prepare(form, folder, "whole")
        started = time.monotonic()
        end(whole.start(), 0)
        seconds = time.monotonic() - started
        kinds = share(KILLS, options.kills, place) + share(tuple(STOPS), options.stops, place)
        draw.shuffle(kinds)
        while kinds:
            broken = prepare(form, folder, str(figures.whole_runs))
            seconds = torment(broken, seconds, kinds, draw, figures)
            if found := differences(whole.results, broken.results):
                raise DifferentError(f"{form}: {'; '.join(found)}")
            figures.whole_runs += 1
            print(f"{form}: came to its end, all the same; {len(kinds)} signals to come", flush=True)


def prepare(form: str, folder: Path, name: str) -> Command:
    """The command in a folder of this name, which has what it needs: `score` the maps of the undisturbed run."""
    results = folder / form / name
    if form == "score":
        shutil.copytree(folder / "run" / "whole", results)
    return Command(form, folder, results)


def share(kinds: Sequence[str], count: int, place: int) -> list[str]:
    """Of `count` signals those that the form in this place gets, the kinds in turn."""
    return [kinds[n // len(FORMS) % len(kinds)] for n in range(place, count, len(FORMS))]


def torment(command: Command, seconds: float, kinds: list[str], draw: random.Random, figures: Figures) -> float:
    """Start a command until it comes to its end, and disturb it as long as there are `kinds` left, from the last on.

    `seconds` is what it took when it was last left in peace; returned is what it took this time.
    """
    results = command.results
    before = committed(results)
    while True:
        left = unfinished(results)  # stays for the next start to meet
        started = time.monotonic()
        process = command.start()
        figures.starts += 1
        watched = Watched(process, command.folder / "images", results, seconds)
        kind = kinds[-1] if kinds else ""
        try:
            if not kind or not watched.wait_for(kind, draw):
                end(process, 0)
                return time.monotonic() - started
            stopped = time.monotonic()
            if kind in KILLS:
                os.kill(draw.choice(watched.threads()) if kind == "decoding" else process.pid, signal.SIGKILL)
            else:
                process.send_signal(signal.Signals[kind])
            errors = end(process, -signal.SIGKILL if kind in KILLS else STOPS[kind], 0)
        except (TimeoutError, DifferentError) as error:
            raise DifferentError(f"{command.form}, {kind}: {error}") from error
        finally:
            process.kill()
        if process.returncode == 0:  # it was about to end
            return time.monotonic() - started
        figures.signals[kinds.pop(), command.form] += 1
        if kind in STOPS:
            spent = time.monotonic() - stopped
            figures.slowest_stop = max(figures.slowest_stop, spent)
            if spent > LONGEST_STOP or next_words(errors) != command.words:
                raise DifferentError(f"{command.form}, {kind}: it took {spent:.1f} s and said: {errors}")
        figures.left_unfinished += kind in KILLS and bool(unfinished(results) - left)
        after = committed(results)
        lost = [path for path, content in before.items() if after.get(path) != content]
        if lost or torn(results):
            raise DifferentError(f"{command.form}, {kind}: torn: {torn(results)}; committed, then not the same: {lost}")
        before = after


def unfinished(results: Path) -> set[Path]:
    """Files that were being written when their process died."""
    return set(results.rglob(".*.tmp"))


def end(process: subprocess.Popen[str], *codes: int) -> str:
    """Wait for its end; return what it said on stderr. Raises DifferentError unless the code is one of these."""
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise DifferentError("it did not end") from error
    if process.returncode not in codes or "Traceback" in errors:
        raise DifferentError(f"it ended with {process.returncode}: {output}{errors}")
    return errors


def next_words(errors: str) -> list[str]:
    """What the last line of stderr tells to write after `igos-bench`."""
    return shlex.split(errors.strip().split("\n")[-1].partition("to go on: igos-bench ")[2])


def write_images(root: Path) -> None:
    """Noise, slow enough to decode that a moment of it can be met."""
    root.mkdir()
    pixels = np.random.default_rng(0)
    for i in range(IMAGES):
        Image.fromarray(pixels.integers(0, 256, (700, 900, 3), dtype=np.uint8)).save(root / f"{i:02d}.png")


if __name__ == "__main__":
    sys.exit(main())
