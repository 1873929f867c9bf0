"""How the processes of `torchrun -m igos_bench ... shard=auto` end: it stops them all when one ends with an error."""

from __future__ import annotations

import os
import time
from datetime import timedelta

PAUSE = 0.5
"""Seconds between two looks at who has ended."""


def end_after_the_others(code: int) -> None:
    """Say that this process has done its part; with an exit code other than 0 wait until all others have.

    An image that cannot be read would else cost the other shards what they are computing. Nothing is waited for where
    torchrun has not started this process. One that crashes says nothing: torchrun then stops all, also who waits here.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=30))
    key = f"igos-bench/ended/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    ended = store.add(key, 1)
    while code and ended < int(os.environ["WORLD_SIZE"]):
        time.sleep(PAUSE)
        ended = store.add(key, 0)
