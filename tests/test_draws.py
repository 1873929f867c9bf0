"""Draws made ahead are the draws made in time."""

from __future__ import annotations

import threading

import torch

from igos_bench.methods.draws import drawn_ahead


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in (3, 4)]


def test_the_same_numbers_in_the_same_order() -> None:
    first, second = generators()
    expected = [torch.randn(2, 5, generator=generator) for generator in (first, second, first, second, first, second)]
    drawn = list(drawn_ahead(generators(), (2, 5), rounds=3))
    assert len(drawn) == 6 and all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))


def test_the_global_random_state_is_left_alone_and_the_worker_ends() -> None:
    before, threads = torch.get_rng_state(), threading.active_count()
    draws = drawn_ahead(generators(), (2, 5), rounds=3)
    next(draws)
    draws.close()  # as where the method fails
    assert torch.equal(before, torch.get_rng_state())
    assert threading.active_count() == threads
