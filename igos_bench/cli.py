"""The commands; with `overrides`, `words`, `composing` and `launch` the only modules that know Hydra.

    igos-bench [run] [overrides]     explain and score (the default); -m sweeps
    igos-bench score [overrides]     score the stored maps of the same run again, under another protocol
    igos-bench score maps=FOLDER name=NAME   score maps made elsewhere, FOLDER/<image_id>.npy, as method NAME
    igos-bench table [results_dir=.] make and print results/table.csv, .md and .tex; allow_partial=true takes
                                     incomplete cells, marked
    igos-bench compare [same words]  paired differences between methods on the same images, results/comparison.csv
    igos-bench figure kind=scatter|time [methods=[...] width=3.3 results_dir=.]  a figure for a paper, results/figures/
    igos-bench figure kind=curves|perturbed|resolutions image=ID [methods=[...] resolution=28 fraction=0.064 dpi=300]
                                     of one image: heatmaps and curves of methods side by side; what is left of it, and
                                     what is not, at a share of its pixels; method= at all its resolutions
    igos-bench animate image=ID [method=igos resolution=28 format=gif|mp4 frames=50]  the film of its deletion and
                                     insertion, results/figures/
    igos-bench report [results_dir=.] a page to look through all runs and images, results/report.html
    igos-bench show RUN_KEY [results_dir=.]  the command that makes a run of the table again, and all it was made with
    igos-bench plan [overrides] [rate=.]  what would run, what of it is done, hours left, storage; computes nothing but,
                                     with rate=measured, the rate of this device; rate=FORWARD,GRADIENT gives another's
    igos-bench status [results_dir=.] what is done, running and failed, and hours left, from the files alone
    igos-bench check-data [overrides] say what the data are, and whether the model recognises them

Overrides are KEY=VALUE of a key in conf/. Flags: -m sweeps over values a,b,c; --config-dir FOLDER adds your own YAML
files (method/, model/, data/, protocol/).

Exit codes: 0 done, 1 a job of a sweep broke, 2 a mistake in what was asked, 3 some images failed, 4 results cannot be
written, 130 interrupted (Ctrl-C), 143 told to end (SIGTERM); after 3, 4, 130 and 143 the same command goes on.
Under torchrun failed images end with 0 too: any other code makes it start all processes again.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn

from .config import RunConfig
from .errors import IncompleteError, UserError, WriteError, lose_words, lost_words, say, tell, unknown
from .readers import READERS

if TYPE_CHECKING:
    from .data import Read
    from .jobs import Jobs

COMMANDS = ("run", "score", *READERS, "plan", "check-data")


def main() -> int:
    """Run the command that the command line asks for; return its exit code."""
    code = _command(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        lose_words(error)
    return code or lost_words()


def _command(words: list[str]) -> int:
    command = "run"
    warnings.showwarning = lambda message, *_args, **_kwargs: tell(message)
    try:
        if words and "=" not in words[0] and not words[0].startswith(("-", "+", "~")):
            command = words.pop(0)
            if command not in COMMANDS:
                raise UserError(unknown("command", command, COMMANDS))
        if {"--help", "-h"} & set(words):
            say(__doc__)
            return 0
        if command in READERS:
            READERS[command](words)
            return 0
        return _run(command, words)
    except UserError as error:
        tell(error)
        return error.code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `igos-bench --help` lists the flags")


def _run(command: str, words: list[str]) -> int:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from .composing import told
    from .jobs import Jobs
    from .launch import Job, check_launcher_is_there, launch, launcher_of
    from .overrides import CONF, check_overrides
    from .shard import is_one_of_torchruns, spread
    from .torchrun import end_after_the_others

    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_intermixed_args(words)
    if command == "plan":
        from .plan import words_of_plan

        asked.rate, asked.shards, asked.overrides = words_of_plan(asked.overrides)
    asked.overrides = spread(asked.overrides)
    launcher = launcher_of(asked.overrides)
    check_launcher_is_there(launcher, sweep=asked.multirun)
    check_overrides(asked.overrides, asked.config_dir, sweep=asked.multirun)
    _check_maps(command, asked.overrides)
    in_shards = is_one_of_torchruns(os.environ) or any(
        word.startswith("shard=") and word != "shard=null" for word in asked.overrides
    )
    jobs = Jobs(sweep=asked.multirun, what="shards of cells" if in_shards else "cells")
    if command == "plan":
        return _plan(asked, jobs)
    logging.getLogger("hydra").setLevel(logging.ERROR)
    if launcher != "basic":
        launch(launcher, asked.overrides, asked.config_dir, Job(_worker, (command, asked.config_dir)), jobs)
        return jobs.end()
    work = _worker(command, asked.config_dir)

    def job(config: Any) -> None:
        jobs.attempt(config, work)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # it raises what breaks, instead of printing some of it
    try:
        kept = TemporaryDirectory() if asked.multirun else nullcontext(".")
    except OSError as error:
        raise WriteError(
            f"no folder for temporary files can be made ({error.strerror}): make room, or set TMPDIR"
        ) from error
    with kept as folder:
        # Flags first: Hydra's own parser takes no override after a flag that follows one.
        flags = ["--multirun"] * asked.multirun + (["--config-dir", asked.config_dir] if asked.config_dir else [])
        # Results have folders of their own: those of a sweep would only be empty.
        nowhere = [f"hydra.sweep.dir={folder}"] * (not any(word.startswith("hydra") for word in asked.overrides))
        sys.argv = [sys.argv[0], *flags, *asked.overrides, *nowhere]
        try:
            hydra.main(config_path=CONF, config_name="config", version_base="1.3")(job)()
        except (HydraException, OmegaConfBaseException) as error:
            raise told(error, "the words cannot be used") from error
        except OSError as error:
            if not asked.multirun:
                raise
            # What breaks in a sweep's jobs is theirs: only its own folder is left.
            raise WriteError(
                f"cannot write {error.filename}, the folder of the sweep: {error.strerror}; choose another with "
                "hydra.sweep.dir=FOLDER or leave that out"
            ) from error
    return end_after_the_others(jobs.end(), jobs.failed)


def _worker(command: str, config_dir: str | None) -> Callable[[RunConfig], int]:
    """What does a command's work on a configuration, and returns an exit code."""
    from .data import read_once

    read = read_once(look=True)

    def work(config: RunConfig) -> int:
        if command == "check-data":
            return _check_data(config)
        return _explain_and_score(command, config, read, config_dir)

    return work


def _plan(asked: argparse.Namespace, jobs: Jobs) -> int:
    """Not by way of Hydra's sweeper, which composes every cell twice, nor of a launcher: it may be a cluster's."""
    from .data import read_once
    from .overrides import compose_jobs
    from .plan import Planned, plan, printed

    read = read_once()
    planned: list[Planned] = []

    def work(config: RunConfig) -> int:
        planned.append(plan(config, read, asked.rate))
        return 0

    for config in compose_jobs(asked.overrides, asked.config_dir, sweep=asked.multirun):
        jobs.attempt(config, work)
    if planned:
        say(printed(planned, asked.shards))
    return jobs.end()


def _check_maps(command: str, words: list[str]) -> None:
    """Refuse maps made elsewhere where they would be passed over, and what they take the place of."""
    asked = {word.partition("=")[0].partition(".")[0]: word for word in words}
    if not (asked.keys() & {"maps", "name"}):
        return
    if command != "score":
        there = " ".join(word for key, word in asked.items() if key in ("maps", "name"))
        raise UserError(
            f"{there}: `{command}` does not look at maps that were made elsewhere; "
            "`igos-bench score maps=FOLDER name=NAME` scores them"
        )
    for key in ("method", "resolution"):
        if key in asked:
            raise UserError(
                f"{asked[key]}: maps that were made elsewhere have a name instead of a method, and their own "
                f"resolution; leave {asked[key]} out"
            )


def _check_data(config: RunConfig) -> int:
    from .check_data import check_data

    return check_data(config)


def _explain_and_score(command: str, config: RunConfig, read: Read, config_dir: str | None) -> int:
    from .console import Progress, print_header, print_summary
    from .prepare import prepare
    from .runner import execute

    run = prepare(config, read, config_dir)
    print_header(command, run)
    progress = Progress()
    try:
        outcome = execute(run, progress, explain=command == "run", tell=progress.tell, expect=progress.expect)
    finally:
        progress.close()
    if print_summary(outcome, run.shard):
        raise IncompleteError(f"some of its images failed, their rows in {outcome.records} say why")
    return 0
