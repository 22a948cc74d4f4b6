"""The recall of the index on real queries: a small share is searched again exactly, in the background."""

from __future__ import annotations

import logging
import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jaxtyping import Float32
from numpy import ndarray

from raysys.index.neighbours import depth, recall_per_query
from raysys.index.search import Searcher
from raysys.serve import metrics

RECALL_K = 10
_MAX_FILTER_VALUES = 100
_LOWEST_PRIORITY = 19
_MAX_TIME_SHARE = 0.02
_log = logging.getLogger(__name__)


class LiveRecall:
    """Observes `raysys_recall` for a random `share` of the queries, one at a time, at the lowest priority.

    A query that is sampled while another one is compared is not measured, nor is one with a large filter.
    After a comparison the thread rests for 49 times as long: the larger the index, the fewer are compared.
    """

    def __init__(self, share: float, rng: random.Random, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._rng, self._clock = share, rng, clock
        self._rests_until = -math.inf
        self._thread = ThreadPoolExecutor(1, "recall", initializer=_lower_priority)
        self._is_free = threading.Semaphore(1)

    def sample(self, searcher: Searcher, vector: Float32[ndarray, " d"], where: Any) -> None:
        """Maybe measure the recall of this query, which has been answered; returns at once."""
        if self._rng.random() >= self._share or _num_values(where) > _MAX_FILTER_VALUES:
            return
        if self._clock() >= self._rests_until and self._is_free.acquire(blocking=False):
            self._thread.submit(self._measure, searcher, vector, where)

    def wait(self) -> None:
        """Wait for the comparison that runs, if any."""
        with self._is_free:
            pass

    def close(self) -> None:
        """As `wait`; afterwards no query may be sampled."""
        self._thread.shutdown()

    def _measure(self, searcher: Searcher, vector: Float32[ndarray, " d"], where: Any) -> None:
        began = self._clock()
        try:
            metrics.record("raysys_recall", recall_of(searcher, vector, where))
        except Exception:  # nobody waits for this thread
            _log.exception("the recall of a query could not be measured")
        finally:
            ended = self._clock()
            self._rests_until = ended + (ended - began) * (1 / _MAX_TIME_SHARE - 1)
            self._is_free.release()


def recall_of(searcher: Searcher, vector: Float32[ndarray, " d"], where: Any = None) -> float:
    """The share of the 10 nearest items that the index finds for a query."""
    queries = vector[None]
    found = searcher.nearest(queries, RECALL_K, where=where)
    exact = searcher.nearest(queries, depth(RECALL_K), where=where, is_exact=True)
    return float(recall_per_query(exact, found, RECALL_K)[0])


def _num_values(where: Any) -> int:
    conditions = [condition for condition in (where or {}).values() if isinstance(condition, dict)]
    return sum(len(value) for each in conditions for value in each.values() if isinstance(value, list))


def _lower_priority() -> None:
    if (
        sys.platform == "linux"
    ):  # where each thread has a priority of its own, also the threads that it starts
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
