"""Bootstrap intervals: width, coverage, pairing and edge cases."""

import math

import numpy as np
import pytest

from raysys.evaluate import significance
from raysys.evaluate.significance import Interval, bootstrap_lift, bootstrap_mean


def test_value_is_the_mean_and_inside_the_interval() -> None:
    interval = bootstrap_mean(np.array([0.0, 1.0, 1.0, 0.0, 1.0]), samples=500, seed=0)
    assert interval.value == pytest.approx(0.6)
    assert interval.low < 0.6 < interval.high


def test_constant_values_have_an_interval_of_width_zero() -> None:
    assert bootstrap_mean(np.full(9, 0.5), samples=50, seed=0) == Interval(0.5, 0.5, 0.5)


def test_interval_has_the_width_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    interval = bootstrap_mean(values, samples=4000, seed=1)
    # 2 * 1.96 * sd / sqrt(n)
    assert interval.high - interval.low == pytest.approx(3.92 * values.std() / math.sqrt(2000), rel=0.06)


def test_coverage_is_close_to_the_confidence_level() -> None:
    rng = np.random.default_rng(2)
    intervals = [bootstrap_mean(rng.random(80), samples=300, seed=trial) for trial in range(300)]
    covered = np.mean([interval.low <= 0.5 <= interval.high for interval in intervals])
    assert 0.90 <= covered <= 0.98  # 0.95 within 3 standard errors of 300 trials, and the small-sample bias


def test_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random(100)
    first, second, other = (bootstrap_mean(values, samples=100, seed=seed) for seed in (5, 5, 6))
    assert first == second
    assert first != other


def test_chunked_resampling_gives_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(101)
    expected = bootstrap_mean(values, samples=200, seed=4)
    monkeypatch.setattr(significance, "_MAX_INDICES_AT_ONCE", 350)  # three resamples at a time
    assert bootstrap_mean(values, samples=200, seed=4) == expected


def test_lift_is_paired_by_query() -> None:
    old = np.random.default_rng(0).random(50)
    lift = bootstrap_lift(1.1 * old, old, samples=200, seed=0)
    # Unpaired resamples would vary by more than 5 %; paired, every one has a lift of +10 %.
    assert (lift.value, lift.low, lift.high) == pytest.approx((0.1, 0.1, 0.1))


def test_lift_over_zero_is_infinite_or_zero() -> None:
    zeros, ones = np.zeros(4), np.ones(4)
    assert bootstrap_lift(ones, zeros, samples=10, seed=0) == Interval(math.inf, math.inf, math.inf)
    assert bootstrap_lift(zeros, zeros, samples=10, seed=0) == Interval(0.0, 0.0, 0.0)


def test_no_query_is_an_error() -> None:
    with pytest.raises(ValueError, match="no query to resample"):
        bootstrap_mean(np.array([]), samples=10, seed=0)
