"""Which chunks of a run are this process's, where several share it: every n-th, as the words or a launcher say.

The split needs no communication: what a shard left undone is done by whoever comes next, under any other split, since
chunks are known by their files and owned by leases.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import UserError

LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "Slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", ""),
}
"""Variables in which they tell a process its number and how many there are, in all and on this machine."""


@dataclass(frozen=True)
class Shard:
    """Chunks `index`, `index + count`, ... of a run.

    Attributes:
        index: From 0.
        count: In all.
        local_index: Among the processes that a launcher started together on this machine, from 0: the GPU's number.
        local_count: How many these are; they share the processor's cores.
    """

    index: int = 0
    count: int = 1
    local_index: int = 0
    local_count: int = 1

    def has(self, chunk: int) -> bool:
        """Whether a chunk is this process's."""
        return chunk % self.count == self.index

    def __str__(self) -> str:
        """As the words have it; empty where there is one shard, the whole."""
        return f"{self.index}/{self.count}" if self.count > 1 else ""


def find_shard(asked: str | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """The shard of this process.

    Args:
        asked: `i/n` with i from 0 to n - 1; `auto`, what torchrun or Slurm has told this process; None, the whole.
        environment: Where they tell it.

    Raises:
        UserError: It is none of these, or `auto` where neither has started this process.
    """
    if asked is None:
        return Shard()
    if asked == "auto":
        return _told(environment)
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", asked)
    if not found or int(found[1]) >= int(found[2]):
        raise UserError(f"shard={asked}: write i/n, with i from 0 to n - 1, such as shard=0/8, or auto")
    return Shard(int(found[1]), int(found[2]))


def _told(environment: Mapping[str, str]) -> Shard:
    for launcher, names in LAUNCHERS.items():
        if names[0] not in environment:
            continue
        try:
            numbers = [int(environment.get(name, usual)) for name, usual in zip(names, ("", "", "0", "1"), strict=True)]
        except ValueError:
            said = " ".join(f"{name}={environment.get(name)}" for name in filter(None, names))
            raise UserError(f"shard=auto: {launcher} says {said}, which are no numbers; write shard=i/n") from None
        return Shard(*numbers)
    raise UserError(
        "shard=auto: neither torchrun (RANK, WORLD_SIZE) nor Slurm (SLURM_PROCID, SLURM_NTASKS) has started this "
        "process; start it with `torchrun --nproc-per-node=N -m igos_bench ...` or srun, or write shard=i/n"
    )


def spread(words: Sequence[str], *, sweep: bool) -> list[str]:
    """The words of a command line with `shards=n` written out, a job for each of n shards; raises UserError."""
    found = []
    for word in words:
        if word.startswith("shards="):
            count = word.removeprefix("shards=")
            if not re.fullmatch(r"[1-9]\d{0,3}", count):
                raise UserError(f"{word}: give the number of jobs that a cell is spread over, from 1 to 9999")
            if not sweep:
                raise UserError(f"{word}: several jobs are a sweep, which needs the flag -m; one of them is shard=i/n")
            word = "shard=" + ",".join(f"{i}/{count}" for i in range(int(count)))
        found.append(word)
    return found


def threads(shard: Shard) -> int | None:
    """Threads for a process that shares its machine with others of torchrun's; None where that is not known.

    torchrun itself gives one to each, however many cores there are, unless OMP_NUM_THREADS says more.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // shard.local_count) if shard.local_count > 1 else None
