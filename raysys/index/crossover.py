"""How many rows a filter may leave for an exact search to be the better one, measured on an index."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys.index.exact import recall
from raysys.index.nearest import Found, exact_nearest, search_with_selector
from raysys.index.passing import Passing

_ALWAYS_EXACT_ROWS = 10_000  # about a millisecond on one core
_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the rows
_K = 10
_MIN_RECALL = 0.95


def measure_crossover(index: Any, queries: Float32[ndarray, "q d"], seed: int = 0) -> int:
    """The number of passing rows up to which exact search beats the index with a selector; 10,000 or more.

    The index wins at the smallest share of random rows of which it finds 0.95 of the 10 nearest to the
    queries, in less time. Queries are searched one at a time, as they are served; 20 are enough.
    """
    rng = np.random.default_rng(seed)
    max_exact_rows = _ALWAYS_EXACT_ROWS
    for share in _SHARES:
        if share * index.ntotal <= _ALWAYS_EXACT_ROWS:
            continue
        passing = Passing.of_mask(rng.random(index.ntotal) < share)
        exact_search = partial(exact_nearest, index, k=_K, rows=passing.rows())
        exact_scores, exact_s = _timed(exact_search, queries)
        scores, seconds = _timed(partial(search_with_selector, index, k=_K, passing=passing), queries)
        if seconds < exact_s and recall(scores, exact_scores) >= _MIN_RECALL:
            break
        max_exact_rows = passing.count
    return max_exact_rows


def _timed(search: Callable[[ndarray], Found], queries: ndarray) -> tuple[ndarray, float]:
    """The scores of all queries, and the seconds that the search of a query took (median)."""
    scores, seconds = [], []
    for number in range(len(queries)):
        started = time.perf_counter()
        scores.append(search(queries[number : number + 1])[0])
        seconds.append(time.perf_counter() - started)
    return np.concatenate(scores), float(np.median(seconds))
