"""How many rows a filter may leave for an exact search to be the better one, measured on an index."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys.index.neighbours import Neighbours, depth, recall_per_query
from raysys.index.passing import Passing
from raysys.index.shards import Shard, one_thread

_ALWAYS_EXACT_MS = 1.0
_ALWAYS_EXACT_ROWS = 1_000
_TIMED_ROWS = 1_000
_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the rows
_K = 10
_MIN_RECALL = 0.95


def measure_crossover(
    shard: Shard, queries: Float32[ndarray, "q d"], min_recall: float = 0.0, seed: int = 0
) -> int:
    """The number of passing rows up to which exact search beats the search near the query.

    It is at least as many as exact search compares within a millisecond, and at least 1,000: whatever the
    filter, exact search misses nothing. Above that, the index wins at the smallest share of random rows of
    which it finds 0.95 (or `min_recall` if that is more) of the 10 nearest to the queries, in less time.
    Queries are searched one at a time on one thread, as they are served; 20 are enough.
    """
    rng = np.random.default_rng(seed)
    shard = replace(shard, max_exact_rows=0)
    max_exact_rows = always_exact = _rows_within(shard, queries, _ALWAYS_EXACT_MS)
    for share in _SHARES:
        if share * len(shard) <= always_exact:
            continue
        passing = Passing.of_mask(rng.random(len(shard)) < share)
        exact_search = partial(shard.search, k=depth(_K), passing=passing, is_exact=True)
        with one_thread():
            exact, exact_s = _timed(exact_search, queries)
            found, seconds = _timed(partial(shard.search, k=_K, passing=passing), queries)
        recall = float(recall_per_query(exact, found, _K).mean())
        if seconds < exact_s and recall >= max(min_recall, _MIN_RECALL):
            break
        max_exact_rows = passing.count
    return max_exact_rows


def _rows_within(shard: Shard, queries: ndarray, milliseconds: float) -> int:
    """The rows that exact search compares with a query in this time, at least 1,000."""
    num = min(_TIMED_ROWS, len(shard))
    passing = Passing.of_mask(np.arange(len(shard)) % max(1, len(shard) // num) == 0)
    with one_thread():
        _, seconds = _timed(partial(shard.search, k=_K, passing=passing, is_exact=True), queries)
    return max(_ALWAYS_EXACT_ROWS, int(passing.count * milliseconds / 1000 / max(seconds, 1e-6)))


def _timed(search: Callable[[ndarray], Neighbours], queries: ndarray) -> tuple[Neighbours, float]:
    """The neighbours of all queries, and the seconds that the search of a query took (median)."""
    found, seconds = [], []
    for number in range(len(queries)):
        started = time.perf_counter()
        found.append(search(queries[number : number + 1]))
        seconds.append(time.perf_counter() - started)
    scores = np.concatenate([part.scores for part in found])
    rows = np.concatenate([part.rows for part in found])
    return Neighbours(scores, rows), float(np.median(seconds))
