"""How long the searches of an index take, which decides where they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
SHORT_MS = 1.0  # to hand a search to a thread and back takes 0.2 ms of CPU time
_WEIGHT = 0.02  # of the last search in the moving mean


class SearchTime:
    """A moving mean of the time of searches without a filter.

    While it is short, the event loop makes these searches itself. It does so no longer once they take long,
    because of many changed items or a slow disk, for example.
    """

    def __init__(self, first: Iterable[Callable[[], object]]) -> None:
        """Starts with the shortest of the `first` searches; if there is none, the index is empty."""
        self._mean_ms = min((_timed(search)[1] for search in first), default=0.0)

    @property
    def is_short(self) -> bool:
        """Whether a search takes at most a millisecond."""
        return self._mean_ms <= SHORT_MS

    def of(self, search: Callable[[], T]) -> T:
        """Make a search, and count its time."""
        result, ms = _timed(search)
        self._mean_ms += _WEIGHT * (ms - self._mean_ms)
        return result


def _timed(search: Callable[[], T]) -> tuple[T, float]:
    """The result, and the milliseconds that it took."""
    started = time.perf_counter()
    return search(), 1000 * (time.perf_counter() - started)
