"""Random draws, made while the network is busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..lazy import torch

if TYPE_CHECKING:
    from concurrent.futures import Future

    from torch import Tensor


class DrawnAhead(Iterator["Tensor"]):
    """Standard normal draws on the CPU, in rounds over the generators, each drawn while the one before it is in use.

    Drawing 20 x 3 x 224 x 224 numbers takes one core as long as a forward pass of several images; it is the same
    numbers as drawing them when they are needed.

    Where memory runs out, the draw is made again when it is asked for; where there is none then either, that is raised,
    and who asks once more gets the same draw. torch takes the memory first, and its generator is as it was.

    Args:
        generators: One an image.
        shape: Of a draw.
        rounds: How many draws of each generator.

    Yields:
        `rounds` times a draw of every generator, in their order.
    """

    def __init__(self, generators: Sequence[torch.Generator], shape: tuple[int, ...], *, rounds: int) -> None:
        self._turns = deque(generator for _ in range(rounds) for generator in generators)
        self._shape = shape
        self._worker = ThreadPoolExecutor(max_workers=1)  # its thread ends when nothing refers to this any more
        self._following = self._begin()

    def __next__(self) -> Tensor:
        """The next draw; raises what torch raises where there is no memory for it, and may be called again."""
        if not self._turns:
            raise StopIteration
        if self._following.exception() is None:
            current = self._following.result()
        else:
            current = torch.randn(self._shape, generator=self._turns[0])
        self._turns.popleft()
        if self._turns:
            self._following = self._begin()
        return current

    def _begin(self) -> Future[Tensor]:
        return self._worker.submit(torch.randn, self._shape, generator=self._turns[0])
