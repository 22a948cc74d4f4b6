"""The monotonic clock shows when the system clock was set back."""

from __future__ import annotations

import itertools

from raysys.serve.clock import ClockWatch


def test_only_a_step_backwards_counts_and_only_once() -> None:
    system = iter(
        [1000.0, 1000.2, 4600.4, 1000.6, 1000.8, 999.0]
    )  # an hour forwards, and back; two seconds back
    monotonic = itertools.count(7.0, 0.2)
    clock = ClockWatch(lambda: next(system), lambda: next(monotonic))
    assert [clock.has_stepped_back() for _ in range(5)] == [False, False, True, False, False]
