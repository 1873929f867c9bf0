"""How many inputs a micro-batch has: the number asked for, the device's usual one, or the best one measured here."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import torch
from torch import nn

from .config import Precision
from .errors import UserError
from .kept import keep, recall
from .rates import Way, measure_rates

USUAL = {"cpu": 32}
USUAL_ON_A_GPU = 64
SIZES = {"cpu": (1, 2, 4, 8, 16, 32)}
SIZES_ON_A_GPU = (8, 16, 32, 64, 128, 256, 512)
ROUNDS = 2
LONGEST = 6.0  # seconds of one micro-batch in the search: VGG19 in fp32 on two cores is fastest at 16, which take 4 s


def check_batch_size(asked: int | str | None) -> None:
    """Raises UserError for what is neither a number from 1 on, nor `auto`, nor None."""
    if isinstance(asked, str) and asked != "auto":
        raise UserError(f"evaluate.batch_size={asked}: give a number from 1 on, auto, or null")
    if isinstance(asked, int) and asked < 1:
        raise UserError(f"evaluate.batch_size must be at least 1, found {asked}")


def conditions(device: torch.device, precision: Precision) -> dict[str, object]:
    """Under what a rate was measured: with any of it different it has to be measured again."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.node(),
        "threads": torch.get_num_threads(),
        "precision": precision.value,
        "torch": torch.__version__,
    }


def fastest_size(
    network: nn.Module, device: torch.device, precision: Precision, sizes: Sequence[int] | None = None
) -> int:
    """The size of the micro-batch with the best rate of forward and backward passes.

    On two cores the search takes some seconds, of VGG19 in fp32 some twenty.

    Args:
        network: What will run.
        device: Where.
        precision: In what.
        sizes: To choose from, if not the device's.
    """
    sizes = SIZES.get(device.type, SIZES_ON_A_GPU) if sizes is None else sizes
    rates = measure_rates(
        {"": Way(network)}, sizes, backward=True, precision=precision, device=device, rounds=ROUNDS, longest=LONGEST
    )
    return rates[0].size if rates else 1


def choose_batch_size(
    asked: int | str | None, name: str, network: nn.Module, device: torch.device, precision: Precision
) -> int:
    """The size of a micro-batch.

    Args:
        asked: A number; None for the device's usual one; `auto` for the one with the best rate of forward and backward
            passes, which is kept in the user's cache folder: `fastest_size`.
        name: Of the model, as its weights tell it apart.
        network: What will run.
        device: Where.
        precision: In what.
    """
    if isinstance(asked, int):
        return asked
    if asked is None:
        return USUAL.get(device.type, USUAL_ON_A_GPU)
    found = {"model": name, **conditions(device, precision), "longest": LONGEST}
    kept_name = f"batch-size-{name}-{device.type}-{precision.value}"
    known = recall(kept_name, found)
    if known is None:
        known = {"batch_size": fastest_size(network, device, precision)}
        keep(kept_name, found, known, "the size of the micro-batch")
    return int(known["batch_size"])
