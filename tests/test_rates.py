"""Raw rates: networks that sleep, so that which way and which size are fastest is known."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from toys import SmallConv

from igos_bench import rates as rates_module
from igos_bench.config import Precision
from igos_bench.rates import Way, measure_rates

CPU = torch.device("cpu")
SIZE = 8


def sleeper(seconds: Callable[[int], float], calls: list[int] | None = None) -> Way:
    """A network that takes so long for a micro-batch of a size."""

    def network(inputs: Tensor) -> Tensor:
        if calls is not None:
            calls.append(len(inputs))
        time.sleep(seconds(len(inputs)))
        return inputs.mean((2, 3))

    return Way(network)


def fixed_cost(size: int) -> float:
    return 0.02 + 0.01 * size


def crowded_cache(size: int) -> float:
    return 0.01 * size if size <= 2 else 0.03 * size


@pytest.mark.parametrize("backward", [False, True])
def test_the_fastest_way_and_size_come_first(backward: bool) -> None:
    ways = {"fixed cost": sleeper(fixed_cost), "crowded cache": sleeper(crowded_cache)}
    rates = measure_rates(
        ways, (1, 2, 4), backward=backward, precision=Precision.fp32, device=CPU, rounds=1, input_size=SIZE
    )
    assert len(rates) == 6 and rates[0].way == "crowded cache" and rates[0].size in (1, 2)
    assert [rate.seconds for rate in rates] == sorted(rate.seconds for rate in rates)
    found = {(rate.way, rate.size): rate.seconds for rate in rates}
    assert found["fixed cost", 4] == pytest.approx(0.015, rel=0.3), "an input, not a micro-batch"
    assert found["crowded cache", 4] == pytest.approx(0.03, rel=0.3)


def test_only_the_fastest_are_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "CONTENDERS", 1)
    slow: list[int] = []
    ways = {"slow": sleeper(lambda size: 0.25 * size, slow), "fast": sleeper(lambda size: 0.21 * size)}
    measure_rates(ways, (1,), backward=False, precision=Precision.fp32, device=CPU, rounds=3, input_size=SIZE)
    assert slow == [1] * (rates_module.WARM_UPS + rates_module.RUNS), "in the first round alone"


def test_what_takes_long_is_not_warmed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "COLD", 0.3)
    calls: list[int] = []
    ways = {"": sleeper(lambda size: 0.21 * size, calls)}
    measure_rates(ways, (1, 2), backward=False, precision=Precision.fp32, device=CPU, rounds=1, input_size=SIZE)
    assert calls == [1, 1, 1, 1, 2], "two to warm up and two to measure; one"


def test_new_memory_costs_a_size_nothing() -> None:
    """In a fresh process the first two or three runs at the largest size took up to three times as long."""
    calls: list[int] = []
    ways = {"": sleeper(lambda size: (0.03 if size == 4 and calls.count(4) <= 3 else 0.01) * size, calls)}
    rates = measure_rates(ways, (1, 4), backward=False, precision=Precision.fp32, device=CPU, rounds=1, input_size=SIZE)
    assert {rate.size: rate.seconds for rate in rates}[4] == pytest.approx(0.01, rel=0.2)


def test_sizes_that_would_take_too_long_are_left_out() -> None:
    ways = {"slow": sleeper(lambda size: 0.1 * size)}
    rates = measure_rates(
        ways, (4, 1, 2), backward=False, precision=Precision.fp32, device=CPU, rounds=1, longest=0.25, input_size=SIZE
    )
    assert sorted(rate.size for rate in rates) == [1, 2]
    rates = measure_rates(
        ways, (2, 4), backward=False, precision=Precision.fp32, device=CPU, rounds=1, longest=0.01, input_size=SIZE
    )
    assert [rate.size for rate in rates] == [2], "the smallest is always measured"


def test_where_memory_runs_out_larger_sizes_are_left_out() -> None:
    def network(inputs: Tensor) -> Tensor:
        if len(inputs) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return inputs.mean((2, 3))

    options = {"backward": False, "precision": Precision.fp32, "device": CPU, "rounds": 2, "input_size": SIZE}
    rates = measure_rates({"hungry": Way(network)}, (1, 2, 4, 8), **options)
    assert sorted(rate.size for rate in rates) == [1, 2]

    more_than_can_be_addressed = 10**13  # inputs of 768 bytes
    rates = measure_rates({"modest": sleeper(lambda _: 0.01)}, (1, more_than_can_be_addressed), **options)
    assert [rate.size for rate in rates] == [1], "there is no memory for the inputs themselves"

    def broken(inputs: Tensor) -> Tensor:
        raise RuntimeError("another mistake")

    with pytest.raises(RuntimeError, match="another mistake"):
        measure_rates({"broken": Way(broken)}, (1,), **options)


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("backward", [False, True])
def test_how_a_network_is_run(backward: bool, precision: Precision) -> None:
    network = SmallConv(0)
    seen: list[tuple[bool, bool, bool]] = []

    def watched(inputs: Tensor) -> Tensor:
        is_nhwc = inputs.is_contiguous(memory_format=torch.channels_last)
        logits: Tensor = network(inputs)
        seen.append((is_nhwc, torch.is_autocast_enabled("cpu"), logits.requires_grad))
        return logits

    way = Way(watched, torch.channels_last)
    measure_rates({"": way}, (2,), backward=backward, precision=precision, device=CPU, rounds=1, input_size=SIZE)
    assert set(seen) == {(True, precision is Precision.bf16, backward)}
