"""The jobs of a sweep on other machines: what a launcher of Hydra's runs there, and what comes back of it.

A job gets its words and nothing else, and the rows on disk are all that it leaves for the next attempt. Slurm requeues
a job that is preempted or at its time limit, and whatever ends a job else is mended by starting the same command again.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import compress
from types import FrameType
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext

from .config import RunConfig
from .errors import UserError, first_line
from .jobs import Jobs
from .overrides import compose_jobs, composed_sweep

Work = Callable[[RunConfig], int]


class EndedError(BaseException):
    """A job that has reached its time limit for the last time; no failure of the image that it was at."""


@dataclass(frozen=True)
class Job:
    """What is run elsewhere, pickled; `make` makes there, of its arguments, what does the work."""

    make: Callable[..., Work]
    arguments: tuple[str | None, ...]

    def __call__(self, config: Any) -> Jobs:
        """Run one job; what became of it."""
        jobs = Jobs(sweep=True)
        try:
            with _end_is_no_failure():
                jobs.attempt(config, self.make(*self.arguments))
        except EndedError as error:
            jobs.lose(config, f"{error} What is finished is kept; start the same command again", 143)
        jobs.leave_reasons(str(config.results_dir))
        return jobs


@dataclass(frozen=True)
class Lost:
    """A job that ended without a word: killed, cancelled, or never started."""

    reason: str


def launcher_of(words: Sequence[str]) -> str:
    """Which launcher the words choose: `basic` runs jobs here, one after the other."""
    chosen = [word.partition("=")[2] for word in words if word.startswith("hydra/launcher=")]
    return chosen[-1] if chosen else "basic"


def check_launcher_is_there(launcher: str, *, sweep: bool) -> None:
    """Raise UserError where a launcher would not be used, or its package is missing."""
    if launcher == "basic":
        return
    if not sweep:
        raise UserError(f"hydra/launcher={launcher} starts the jobs of a sweep: it needs the flag -m")
    if launcher in ("slurm", "submitit_slurm", "submitit_local"):
        with suppress(ImportError):
            if importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher"):
                return
        raise UserError(
            f"hydra/launcher={launcher} needs the package hydra-submitit-launcher, which is not installed: "
            "pip install 'igos-bench[slurm]'"
        )


def launch(launcher: str, words: Sequence[str], config_dir: str | None, job: Job, jobs: Jobs) -> None:
    """Give all jobs to the launcher, wait for every one, and note in `jobs` what became of each; raises UserError.

    What is known not to be available is not given to it: a job would wait for its GPU only to say so.
    """
    if launcher in ("slurm", "submitit_slurm") and not shutil.which("sbatch"):
        raise UserError(
            f"hydra/launcher={launcher}: there is no sbatch here; start it on a machine of the cluster that has it"
        )
    configs = list(compose_jobs(words, config_dir, sweep=True))
    there = jobs.available(configs)
    configs = list(compress(configs, there))
    if not configs:
        return
    with composed_sweep(words, config_dir) as (config, split), _all_are_waited_for():
        split = list(compress(split, there))
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())
        try:
            chosen = Plugins.instance().instantiate_launcher(context, job, config)
            returned = chosen.launch(split, 0)
        except Exception as error:  # of submitit, of sbatch, of whatever else a launcher asks
            raise UserError(f"hydra/launcher={launcher}: {_why(error)}") from error
    for found, one in zip(returned, configs, strict=True):
        result = found if isinstance(found, Lost) else found._return_value
        if isinstance(result, Jobs):
            jobs.add(result)
        else:
            jobs.lose(one, result.reason if isinstance(result, Lost) else first_line(result), 1)


def _why(error: Exception) -> str:
    """What a program that was called says, where it was one; else the first line of the message."""
    said = getattr(error.__cause__, "stderr", None) or getattr(error, "stderr", None) or ""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return " ".join(text.split()) or first_line(error)


@contextmanager
def _end_is_no_failure() -> Iterator[None]:
    """Within it, submitit's word that a job's last time limit has come passes by what catches an image's errors."""
    usual = signal.getsignal(signal.SIGUSR2)
    if not callable(usual):
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        try:
            usual(signum, frame)
        except subprocess.CalledProcessError as error:
            if error.returncode >= 0:
                raise EndedError(f"Job not requeued because: {error}.") from None
            sys.exit(1)  # `scontrol requeue` was ended by what it asked for: the job's processes are
        except Exception as error:
            raise EndedError(str(error)) from None

    signal.signal(signal.SIGUSR2, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, usual)


@contextmanager
def _all_are_waited_for() -> Iterator[None]:
    """Within it, a job that was killed does not keep submitit's launcher from waiting for the others."""
    try:
        from submitit import Job as Submitted
        from submitit.core.utils import UncompletedJobError
    except ImportError:
        yield
        return
    usual = Submitted.results

    def results(job: Any) -> list[Any]:
        try:
            return list(usual(job))
        except UncompletedJobError:
            return [Lost(f"its job {job.job_id} ended with {job.state}; its log is {job.paths.stderr}")]

    setattr(Submitted, "results", results)  # noqa: B010
    try:
        yield
    finally:
        setattr(Submitted, "results", usual)  # noqa: B010
