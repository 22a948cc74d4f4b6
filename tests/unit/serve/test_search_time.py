"""Searches need no thread while they are short."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raysys.serve.search_time import SearchTime


class Clock:
    """A clock that searches set forward."""

    now_s = 0.0

    def search_of(self, ms: float) -> Callable[[], float]:
        """A search that takes this long, and returns it."""

        def search() -> float:
            self.now_s += ms / 1000
            return ms

        return search


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("raysys.serve.search_time.time.perf_counter", lambda: clock.now_s)
    return clock


def test_first_searches_decide_by_the_shortest_of_them(clock: Clock) -> None:
    assert SearchTime(map(clock.search_of, [30.0, 0.5, 4.0])).is_short
    assert not SearchTime(map(clock.search_of, [30.0, 2.0, 4.0])).is_short
    assert SearchTime([]).is_short


def test_search_returns_its_result_and_one_slow_search_changes_nothing(clock: Clock) -> None:
    times = SearchTime([clock.search_of(0.2)])
    assert times.of(clock.search_of(20.0)) == 20.0
    assert times.is_short


def test_searches_that_have_become_slow_are_noticed(clock: Clock) -> None:
    times = SearchTime([clock.search_of(0.2)])
    number = 0
    while times.is_short:
        times.of(clock.search_of(3.0))
        number += 1
    assert 10 < number < 30
