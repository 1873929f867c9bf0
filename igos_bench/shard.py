"""A run spread over n processes: which chunks are whose, and which processor each process has. Needs no torch.

`shard=i/n` takes chunks i-1, i-1+n, i-1+2n, ... of the manifest. The leases still say who works on what, and the rows
on disk what is done, so that n may be another one at each attempt, and shards of different n may even run beside each
other. `shard=auto` is what torchrun or srun says of this process, and `-m shards=n` a sweep over all n. Of several
processes that torchrun has started each is a shard unasked: nobody starts eight so that all are on the same GPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .errors import UserError

MOST = 10_000


@dataclass(frozen=True)
class Shard:
    """Every `count`-th chunk, from `index` (0-based) on; as text `i/n`, 1-based."""

    index: int = 0
    count: int = 1

    def __bool__(self) -> bool:
        """Whether it is less than the whole."""
        return self.count > 1

    def __str__(self) -> str:
        """As it is asked for."""
        return f"{self.index + 1}/{self.count}"


class Place(NamedTuple):
    """Which of a machine's processes this one is: `local` of 0..`beside`-1, `beside` None where it is not known."""

    shard: Shard
    launcher: str
    local: int
    beside: int | None

    def threads(self, environment: Mapping[str, str], cores: int) -> int | None:
        """Its share of the machine's `cores`, at least one; None leaves what torch takes by itself.

        torchrun sets OMP_NUM_THREADS=1 where it is not set, which no process can tell from a user's own 1: another
        number is the user's. Under srun a task has CPUs of its own, see `task_threads`.
        """
        if self.beside is None:
            return task_threads(environment, cores)
        if environment.get("OMP_NUM_THREADS", "1") != "1":
            return None
        share, more = divmod(cores, self.beside)
        return max(1, share + (self.local < more))

    def device(self, count: int) -> int:
        """Which of `count` CUDA devices is its own; raises UserError where they are too few."""
        if self.local < count:
            return self.local
        if count == 1 and self.launcher == "srun":  # which shows each task the device that is its own
            return 0
        raise UserError(
            f"{self.launcher} has started at least {self.local + 1} processes here, one a CUDA device, and "
            f"there are {count}: start as many, or say device=cpu"
        )


def task_threads(environment: Mapping[str, str], cores: int) -> int | None:
    """The CPUs that a task of Slurm has asked for, at most `cores`; None without any, or where the user says how many.

    A cluster that does not bind tasks to CPUs shows each job all of the machine's.
    """
    asked = environment.get("SLURM_CPUS_PER_TASK", "")
    if "OMP_NUM_THREADS" in environment or not asked.isdecimal():
        return None
    return min(int(asked), cores) or None


def is_one_of_torchruns(environment: Mapping[str, str]) -> bool:
    """Whether torchrun has started this process, and others."""
    return "TORCHELASTIC_RUN_ID" in environment and environment.get("WORLD_SIZE") != "1"


def asked_or_auto(asked: str | None, environment: Mapping[str, str]) -> str | None:
    """What `shard=` asks for; `auto` where it is None and torchrun has started several processes."""
    return "auto" if asked is None and is_one_of_torchruns(environment) else asked


def find_shard(asked: str | None) -> Shard:
    """What `shard=` asks for; the whole where it is None. Raises UserError."""
    if asked is None:
        return Shard()
    if asked == "auto":
        return find_place(os.environ).shard
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", asked, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(
            f"shard={asked}: write i/n with i from 1 to n, as in shard=1/8; auto, which asks torchrun or srun; or null"
        )
    return Shard(int(found[1]) - 1, int(found[2]))


def find_place(environment: Mapping[str, str]) -> Place:
    """What torchrun or srun says of this process in its environment; raises UserError where neither does."""
    if "RANK" in environment or "WORLD_SIZE" in environment:
        rank, size, local, beside = _numbers(environment, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Place(_shard(rank, size, "RANK and WORLD_SIZE"), "torchrun", local, max(beside, local + 1))
    # A batch script has SLURM_PROCID=0 and the job's SLURM_NTASKS as well, and is one process: only srun makes a step.
    if "SLURM_STEP_ID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        rank, size, local = _numbers(environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        return Place(_shard(rank, size, "SLURM_PROCID and SLURM_STEP_NUM_TASKS"), "srun", local, None)
    if "SLURM_PROCID" in environment:
        raise UserError(
            "shard=auto: Slurm runs this process, and not as a task of srun's: a batch script is one process, whatever "
            "its --ntasks; write `srun igos-bench ... shard=auto` in it, or shard=i/n"
        )
    raise UserError(
        "shard=auto asks torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or srun (SLURM_PROCID, SLURM_STEP_NUM_TASKS) which "
        "shard this process is, and neither has started it: start it with one of them, as in `torchrun "
        "--nproc-per-node=8 -m igos_bench ... shard=auto`, or write shard=i/n"
    )


def own_place(asked: str | None, environment: Mapping[str, str]) -> Place | None:
    """This process's place among those beside it, which gives it a device and threads; None where it may be alone.

    Whatever is computed: of torchrun's processes with `shard=4/8` or `-m shards=8` too, each has a device of its own.
    """
    return find_place(environment) if asked == "auto" or is_one_of_torchruns(environment) else None


def spread(words: Sequence[str]) -> list[str]:
    """The words with `shards=n` written out as the sweep shard=1/n,...,n/n that it stands for; raises UserError."""
    found: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        if key == "shards":
            if not re.fullmatch(r"\d{1,9}", value, re.ASCII) or not 1 <= int(value) <= MOST:
                raise UserError(f"{word}: write into how many shards each cell is spread, from 1 to {MOST:,}")
            word = "shard=" + ",".join(str(Shard(i, int(value))) for i in range(int(value)))
        found.append(word)
    return found


def _shard(rank: int, size: int, names: str) -> Shard:
    if not 0 <= rank < size:
        raise UserError(
            f"shard=auto: of {names} the first must be from 0 to less than the second, found {rank}, {size}"
        )
    return Shard(rank, size)


def _numbers(environment: Mapping[str, str], *names: str) -> list[int]:
    for name in names:
        if not re.fullmatch(r"\d{1,9}", environment.get(name, ""), re.ASCII):
            found = f"{name}={environment[name]}" if name in environment else f"no {name}"
            raise UserError(f"shard=auto needs {', '.join(names)} as numbers in the environment, found {found}")
    return [int(environment[name]) for name in names]
