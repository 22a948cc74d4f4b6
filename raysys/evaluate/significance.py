"""Uncertainty of a mean: percentile bootstrap over queries (Efron 1979).

One seed gives the same resamples for every metric and system, so intervals of systems on the same queries
are comparable and a lift is paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

MIN_QUERIES = 30  # of fewer, a percentile interval is too narrow and depends on single queries
_MAX_INDICES_AT_ONCE = 1 << 20  # 8 MB, independent of the number of queries


@dataclass(frozen=True)
class Interval:
    """A measured value and the bounds of its confidence interval."""

    value: float
    low: float
    high: float


def bootstrap_mean(
    values: Float[ndarray, " queries"], *, samples: int, seed: int, confidence: float = 0.95
) -> Interval:
    """The mean over queries with its interval.

    Raises: ValueError without a query.
    """
    means = _resampled_means(values[None, :], samples, seed)[:, 0]
    return _interval(float(np.mean(values, dtype=np.float64)), means, confidence)


def bootstrap_lift(
    new: Float[ndarray, " queries"],
    old: Float[ndarray, " queries"],
    *,
    samples: int,
    seed: int,
    confidence: float = 0.95,
) -> Interval:
    """The relative lift `mean(new) / mean(old) - 1`; both are resampled with the same queries.

    If the old mean is 0, the lift is inf for a positive new mean and 0 for a new mean of 0.
    Raises: ValueError without a query, or if the two differ in length.
    """
    means = _resampled_means(np.stack([new, old]), samples, seed)
    value = _lift(np.array([new.mean(dtype=np.float64)]), np.array([old.mean(dtype=np.float64)]))
    return _interval(float(value[0]), _lift(means[:, 0], means[:, 1]), confidence)


def _resampled_means(
    values: Float[ndarray, "metrics queries"], samples: int, seed: int
) -> Float[ndarray, "samples metrics"]:
    num_queries = values.shape[1]
    if num_queries == 0:
        raise ValueError("no query to resample")
    rng = np.random.default_rng(seed)
    chunk = max(1, _MAX_INDICES_AT_ONCE // num_queries)
    means = np.empty((samples, values.shape[0]))
    for start in range(0, samples, chunk):
        stop = min(start + chunk, samples)
        resamples = rng.integers(num_queries, size=(stop - start, num_queries))
        for metric, row in enumerate(values.astype(np.float64)):
            means[start:stop, metric] = row[resamples].mean(axis=1)
    return means


def _lift(new: Float[ndarray, " n"], old: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    ratio = np.where(new > 0, np.inf, 1.0)  # the result where `old` is 0
    np.divide(new, old, out=ratio, where=old > 0)
    return ratio - 1.0


def _interval(value: float, resampled: Float[ndarray, " samples"], confidence: float) -> Interval:
    tail = (1.0 - confidence) / 2.0
    # No interpolation between resamples: a lift may be inf, and inf - inf is NaN.
    low, high = np.quantile(resampled, [tail, 1.0 - tail], method="inverted_cdf")
    return Interval(value=value, low=float(low), high=float(high))
