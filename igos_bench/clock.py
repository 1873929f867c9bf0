"""Seconds and memory, as the device spends them."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import torch


class Clock:
    """Synchronised wall time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.last = self._now()

    def lap(self) -> float:
        """Seconds since the last lap."""
        last, self.last = self.last, self._now()
        return self.last - last

    def _now(self) -> float:
        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).synchronize()
        return time.perf_counter()


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far: the device's on CUDA, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:  # what getrusage says starts at what the process that started this one had
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    except (OSError, IndexError):  # no Linux
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
