"""Ratios of contenders over the rounds of a benchmark."""

from __future__ import annotations

import pytest

from raysys.bench.measure import median_ratio


def test_ratio_is_the_median_of_the_rounds_and_not_of_the_rates() -> None:
    # In the second round the machine was half as fast for both.
    assert median_ratio([90.0, 45.0, 80.0], [100.0, 50.0, 100.0]) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="zip"):
        median_ratio([1.0], [1.0, 2.0])
