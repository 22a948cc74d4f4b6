"""Searches need no thread while they are short."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raysys.serve import search_time
from raysys.serve.search_time import SearchTime


class Clocks:
    """Clocks that searches set forward."""

    wall_s = cpu_s = 0.0
    disk_waits = 0

    def search_of(self, ms: float, *, waits_ms: float = 0.0, disk_waits: int = 0) -> Callable[[], float]:
        """A search that computes and waits for so long, and returns the first."""

        def search() -> float:
            self.cpu_s += ms / 1000
            self.wall_s += (ms + waits_ms) / 1000
            self.disk_waits += disk_waits
            return ms

        return search


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()

    def now() -> search_time._Clocks:
        return search_time._Clocks(clocks.wall_s, clocks.cpu_s, clocks.disk_waits)

    monkeypatch.setattr(search_time, "_now", now)
    return clocks


def searches_until(times: SearchTime, search: Callable[[], float], *, is_short: bool) -> int:
    number = 0
    while times.is_short != is_short:
        times.of(search)
        number += 1
    return number


def test_first_searches_decide_by_the_shortest_of_them(clocks: Clocks) -> None:
    assert SearchTime(map(clocks.search_of, [30.0, 0.5, 4.0])).is_short
    assert not SearchTime(map(clocks.search_of, [30.0, 2.0, 4.0])).is_short
    assert SearchTime([]).is_short


def test_search_returns_its_result_and_one_slow_search_changes_nothing(clocks: Clocks) -> None:
    times = SearchTime([clocks.search_of(0.2)])
    assert times.of(clocks.search_of(20.0)) == 20.0
    assert times.is_short


def test_searches_that_become_slow_and_short_again_are_noticed(clocks: Clocks) -> None:
    times = SearchTime([clocks.search_of(0.2)])
    assert 10 < searches_until(times, clocks.search_of(3.0), is_short=False) < 30
    assert 1 <= searches_until(times, clocks.search_of(0.2), is_short=True) < 10


def test_searches_that_wait_for_a_core_are_short_and_those_that_wait_for_the_disk_are_not(
    clocks: Clocks,
) -> None:
    times = SearchTime([clocks.search_of(0.2)])
    for _ in range(200):
        times.of(clocks.search_of(0.2, waits_ms=10.0))
    assert times.is_short
    assert searches_until(times, clocks.search_of(0.2, waits_ms=10.0, disk_waits=1), is_short=False) < 10


def test_time_of_a_real_search_is_its_cpu_time() -> None:
    assert not SearchTime([lambda: sum(range(500_000))]).is_short
    assert SearchTime([lambda: sum(range(100))]).is_short
