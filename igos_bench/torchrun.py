"""How the processes of `torchrun -m igos_bench ...` end: it stops them all when one ends with an error."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

from .errors import IncompleteError, tell

PAUSE = 0.5
"""Seconds between two looks at who has ended."""

PATIENCE = 30.0
"""Seconds until nobody is taken to listen where torchrun should: then no one is waited for."""


def end_after_the_others(code: int, failed: Mapping[tuple[str, int], Sequence[str]]) -> int:
    """Say that this process has done its part; the exit code to end with, which 0 is where images alone have failed.

    torchrun takes each other code for a crash, stops the others and starts all of them again: an image that cannot be
    read would cost the other shards what they are computing, and all of `--max-restarts`. A mistake (2) or a full disk
    (4) is the same for every process and ends each with its code, so that torchrun ends with an error, restarts
    included; who is first waits for the others. Nothing is done where torchrun has not started this process. One that
    crashes says nothing: torchrun then stops all, also who waits here.

    Args:
        code: The command's.
        failed: What went wrong, as `Jobs.failed` has it.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return code
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    if code == IncompleteError.code:
        for (reason, why), names in failed.items():
            if why == IncompleteError.code:
                tell(f"{', '.join(names)}: {reason}; it ends with 0, as torchrun would start all processes again")
        code = max((other for _, other in failed if other != IncompleteError.code), default=0)
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    key = f"igos-bench/ended/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    try:
        store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=PATIENCE))
        ended = store.add(key, 1)
        while code and ended < int(os.environ["WORLD_SIZE"]):
            time.sleep(PAUSE)
            ended = store.add(key, 0)
    except RuntimeError:  # all errors of torch.distributed are: nobody is there to ask, and the work is done
        pass
    return code
