from __future__ import annotations

import numpy as np
import pytest

from igos_bench import statistics
from igos_bench.statistics import holm, interval, wilcoxon


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0)
    samples = draws.exponential(size=(200, 40))
    covered = sum(low <= 1 <= high for low, high in map(interval, samples))
    assert 175 <= covered <= 199, "95 % of 200, skewed and small"


def test_interval_is_the_normal_one_for_many_values_and_the_same_every_time() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.1, size=5_000)
    low, high = interval(values)
    error = values.std(ddof=1) / 5_000**0.5
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=2e-4)
    assert interval(values) == (low, high)


def test_interval_of_little() -> None:
    assert np.isnan(interval(np.array([0.5]))).all()
    assert interval(np.full(4, 0.5)) == (0.5, 0.5)


def test_wilcoxon_exact_by_hand() -> None:
    # 5 positive differences: all signs +, one of 2^5 sign patterns at either end
    assert wilcoxon(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(2 / 32)
    assert wilcoxon(np.zeros(6)) == 1


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1, never falling
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_an_interval_of_many_values_is_the_one_that_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of skewed values it is not symmetric about the mean; the draws' noise is up to 2 % of the width."""
    few = np.random.default_rng(1).exponential(size=300)
    drawn = np.array(interval(few))
    monkeypatch.setattr(statistics, "MANY", 299)
    worked_out = np.array(interval(few))
    assert np.abs(worked_out - drawn).max() < 0.02 * np.ptp(drawn)
    below, above = few.mean() - worked_out[0], worked_out[1] - few.mean()
    assert above > 1.1 * below
    assert interval(few, 0.5)[1] < worked_out[1]


def test_a_million_values_take_a_moment() -> None:
    values = np.random.default_rng(0).beta(2, 5, size=1_280_000)
    low, high = interval(values)
    expected = 1.959964 * values.std() / np.sqrt(len(values))
    assert (values.mean() - low, high - values.mean()) == pytest.approx((expected, expected), rel=0.01)
