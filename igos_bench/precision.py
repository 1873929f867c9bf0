"""What a network runs in: bfloat16 under autocast, or TF32 where a GPU has it; all else stays float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from .config import Precision


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """What the forward pass runs under."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision is Precision.bf16 else nullcontext()


@contextmanager
def allow_tf32(precision: Precision) -> Iterator[None]:
    """What forward and backward pass run under: torch's own switches, which hold for everything else on the device."""
    with _switched((True, True) if precision is Precision.tf32 else _switches()):
        yield


@contextmanager
def forbid_rounding() -> Iterator[None]:
    """What a forward pass runs under that is to be float32 in every precision; outside of any autocast."""
    with _switched((False, False)):
        yield


def _switches() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@contextmanager
def _switched(allowed: tuple[bool, bool]) -> Iterator[None]:
    before = _switches()
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
