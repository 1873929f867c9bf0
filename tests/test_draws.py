"""Draws made ahead are the draws made in time, also where there was no memory for some of them."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from igos_bench.evaluate import is_out_of_memory
from igos_bench.methods.draws import DrawnAhead

TURNS = (0, 1, 0, 1, 0, 1)
TOO_LARGE = (2**55,)


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in (3, 4)]


def expected() -> list[Tensor]:
    both = generators()
    return [torch.randn(2, 5, generator=both[turn]) for turn in TURNS]


def test_the_same_numbers_in_the_same_order() -> None:
    drawn = list(DrawnAhead(generators(), (2, 5), rounds=3))
    assert len(drawn) == 6 and all(torch.equal(a, b) for a, b in zip(drawn, expected(), strict=True))


def test_the_global_random_state_is_left_alone_and_the_worker_ends() -> None:
    before, threads = torch.get_rng_state(), set(threading.enumerate())
    draws = DrawnAhead(generators(), (2, 5), rounds=3)
    next(draws)
    (worker,) = set(threading.enumerate()) - threads
    del draws  # as where the method fails
    worker.join(10)
    assert not worker.is_alive()
    assert torch.equal(before, torch.get_rng_state())


def test_a_draw_for_which_there_is_no_memory_leaves_its_generator_as_it_was() -> None:
    generator = generators()[0]
    before = generator.get_state()
    draws = DrawnAhead([generator], TOO_LARGE, rounds=2)
    for _ in range(2):
        with pytest.raises(RuntimeError) as error:
            next(draws)
        assert is_out_of_memory(error.value)
    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize("failures", [1, 2, 3, 4])
@pytest.mark.parametrize("turn", range(len(TURNS)))
def test_draws_are_the_same_whenever_memory_runs_out(turn: int, failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made ahead and then when it is asked for, each time it is asked for again."""
    shapes = [(2, 5)] * turn + [TOO_LARGE] * failures  # of the calls to come; the others as they ask
    whole = torch.randn

    def scarce(shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
        return whole(shapes.pop(0) if shapes else shape, generator=generator)

    wanted = expected()
    monkeypatch.setattr(torch, "randn", scarce)
    draws = DrawnAhead(generators(), (2, 5), rounds=3)
    found, refused = [], 0
    while len(found) < len(TURNS):
        try:
            found.append(next(draws))
        except RuntimeError:
            refused += 1
    assert refused == failures - 1, "the first was made ahead, and was not needed yet"
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert not list(draws)
