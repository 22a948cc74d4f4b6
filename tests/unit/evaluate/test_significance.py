"""The bootstrap: coverage, pairing, and what it does at the edges."""

import math

import numpy as np
import pytest

from raysys.evaluate import significance
from raysys.evaluate.significance import Interval, bootstrap_lift, bootstrap_mean


def test_the_value_is_the_plain_mean_and_lies_in_the_interval() -> None:
    interval = bootstrap_mean(np.array([0.0, 1.0, 1.0, 0.0, 1.0]), samples=500, seed=0)
    assert interval.value == pytest.approx(0.6)
    assert interval.low < 0.6 < interval.high


def test_the_same_value_everywhere_leaves_no_doubt() -> None:
    assert bootstrap_mean(np.full(9, 0.5), samples=50, seed=0) == Interval(0.5, 0.5, 0.5)


def test_the_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    interval = bootstrap_mean(values, samples=4000, seed=1)
    # 2 * 1.96 * sd / sqrt(n)
    assert interval.high - interval.low == pytest.approx(3.92 * values.std() / math.sqrt(2000), rel=0.06)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    intervals = [bootstrap_mean(rng.random(80), samples=300, seed=trial) for trial in range(300)]
    covered = np.mean([interval.low <= 0.5 <= interval.high for interval in intervals])
    assert 0.90 <= covered <= 0.98  # 0.95 within 3 standard errors of 300 trials, and the small-sample bias


def test_a_seed_gives_the_same_interval_twice() -> None:
    values = np.random.default_rng(0).random(100)
    first, again, other = (bootstrap_mean(values, samples=100, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_drawing_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(101)
    at_once = bootstrap_mean(values, samples=200, seed=4)
    monkeypatch.setattr(significance, "_MAX_DRAWS_AT_ONCE", 350)  # three resamples at a time
    assert bootstrap_mean(values, samples=200, seed=4) == at_once


def test_a_lift_is_paired_by_query() -> None:
    old = np.random.default_rng(0).random(50)
    lift = bootstrap_lift(1.1 * old, old, samples=200, seed=0)
    # Unpaired resamples would differ by more than 5 % from chance alone; paired they are all +10 %.
    assert (lift.value, lift.low, lift.high) == pytest.approx((0.1, 0.1, 0.1))


def test_from_nothing_the_lift_is_infinite_or_zero() -> None:
    nothing, something = np.zeros(4), np.ones(4)
    assert bootstrap_lift(something, nothing, samples=10, seed=0) == Interval(math.inf, math.inf, math.inf)
    assert bootstrap_lift(nothing, nothing, samples=10, seed=0) == Interval(0.0, 0.0, 0.0)


def test_no_query_is_refused() -> None:
    with pytest.raises(ValueError, match="no query to resample"):
        bootstrap_mean(np.array([]), samples=10, seed=0)
