"""What this machine is."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def processor(device: torch.device) -> str:
    """The name of what the network runs on: the GPU's, else the machine's processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
