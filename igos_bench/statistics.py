"""How far a mean can be believed: bootstrap intervals, paired tests, and the price of making many of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

MANY = 10_000
"""Values beyond which an interval is worked out: drawing 10,000 times takes minutes, scipy's jackknife n^2 steps."""


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval (scipy's BCa, 10,000 resamples, seeded) of the mean; nan for fewer than two values.

    Of paired differences it is the paired bootstrap's: images are drawn, each with both its values. Of more than `MANY`
    values it is what BCa comes to without drawing, see `expanded`.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    if np.ptp(values) < 1e-12:  # of areas in [0, 1]: nothing but rounding, of which BCa makes nan
        return float(values.min()), float(values.max())
    if len(values) > MANY:
        return expanded(values, confidence)
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=10_000,
        confidence_level=confidence,
        batch=max(1, 5_000_000 // len(values)),  # 40 MB at a time, whatever the number of images
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def expanded(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The BCa interval of the mean, of any number of resamples, by its expansion to second order in 1 / sqrt(n).

    What it leaves out is of order n^-3/2, far below what another seed changes of 10,000 resamples.

    Args:
        values: (n,), not all the same.
        confidence: In (0, 1).

    Source: Hall, Theoretical Comparison of Bootstrap Confidence Intervals, Annals of Statistics 16 (1988).
    """
    error = np.std(values) / np.sqrt(len(values))
    acceleration = stats.skew(values) / (6 * np.sqrt(len(values)))
    z = stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.mean(values) + error * (z + acceleration * (2 * z**2 + 1))
    return float(low), float(high)


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that paired differences are symmetric about 0; 1 where all are 0."""
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979) for the number of tests: adjusted p, in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(np.asarray(p_values)[order] * (len(order) - np.arange(len(order))))
    return [float(p) for p in adjusted.clip(max=1)]
