"""How long the searches of an index take, which decides where they run."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

T = TypeVar("T")
SHORT_MS = 1.0  # to hand a search to a thread and back takes 0.2 ms of CPU time
_WEIGHT = 0.02  # of the last search in the moving mean


class SearchTime:
    """A moving mean of the time of searches without a filter, wherever they run.

    While it is short, the event loop makes these searches itself. It does so no longer while they take long,
    because of many changed items or a slow disk, for example. The time is CPU time, unless a search waits for
    the disk: a search that waits for a core, or for the interpreter, would be no shorter in a thread.
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


class _Clocks(NamedTuple):
    """The clocks of a thread."""

    wall_s: float
    cpu_s: float
    disk_waits: int
    """Page faults that had to read from the disk."""


def _now() -> _Clocks:
    faults = resource.getrusage(resource.RUSAGE_THREAD).ru_majflt if sys.platform == "linux" else 0
    return _Clocks(time.perf_counter(), time.thread_time(), faults)


def _timed(search: Callable[[], T]) -> tuple[T, float]:
    """The result, and its time in milliseconds."""
    before = _now()
    result, after = search(), _now()
    waited = after.disk_waits > before.disk_waits
    return result, 1000 * (after.wall_s - before.wall_s if waited else after.cpu_s - before.cpu_s)
