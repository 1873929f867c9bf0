"""Random draws, made while the network is busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def drawn_ahead(generators: Sequence[torch.Generator], shape: tuple[int, ...], *, rounds: int) -> Iterator[Tensor]:
    """Standard normal draws on the CPU, in rounds over the generators, each drawn while the one before it is in use.

    Drawing 20 x 3 x 224 x 224 numbers takes one core as long as a forward pass of several images; it is the same
    numbers as drawing them when they are needed.

    Args:
        generators: One an image.
        shape: Of a draw.
        rounds: How many draws of each generator.

    Yields:
        `rounds` times a draw of every generator, in their order.
    """
    turns = [generator for _ in range(rounds) for generator in generators]
    with ThreadPoolExecutor(max_workers=1) as worker:
        following = worker.submit(torch.randn, shape, generator=turns[0])
        for generator in [*turns[1:], None]:
            current = following.result()
            if generator is not None:
                following = worker.submit(torch.randn, shape, generator=generator)
            yield current
