"""The nearest rows of one FAISS index, of all rows or of those that pass a filter.

Three searches share the work:

- exact search compares the query with every row that passes, and is the fastest where few pass;
- the index examines rows that pass near the query, more until its result stays the same (`filtered.py`);
- where most rows pass, a plain search for more neighbours is filtered afterwards.

Every result is checked: a query with fewer neighbours than exist is searched again with the next of these
searches, exactly in the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys.index.device import CPU, Device, IndexCopy
from raysys.index.filtered import search_passing
from raysys.index.kinds import search_parameters
from raysys.index.neighbours import Neighbours, exact_neighbours
from raysys.index.passing import Passing
from raysys.index.stored import StoredVectors

_PLAIN_FROM_SHARE = 0.5  # of rows that pass: a plain search for twice as many has enough that pass
_SPARE = 1.3  # factor on the number that a plain search is expected to need


def nearest(
    index: Any,
    stored: StoredVectors,
    settings: Mapping[str, int],
    queries: Float32[ndarray, "q d"],
    k: int,
    passing: Passing | None = None,
    *,
    max_exact_rows: int = 0,
    device: Device = CPU,
    copy: IndexCopy | None = None,
    parameters: Any = None,
) -> Neighbours:
    """The `k` nearest rows of each query; fewer columns if fewer rows pass, and never row -1.

    `stored` are the vectors of the index. `settings` are those of `search_parameters`, and `parameters` what
    it returns without a selector, to save making them. Exact where at most `max_exact_rows` rows pass.
    `device` compares many queries with stored vectors, and `copy` searches without a filter.
    """
    k = min(k, index.ntotal if passing is None else passing.count)
    if not k:
        return Neighbours.none(len(queries), 0)

    def plain(num: int, queries: ndarray) -> Neighbours:
        params = parameters or search_parameters(index, settings)
        return Neighbours(*(copy or index).search(queries, num, params=params))

    first, *others = _searches(index, stored, settings, k, passing, max_exact_rows, device, plain)
    found = _checked(first(queries), k, passing)
    for search in others:
        if _is_complete(found):
            break
        unfinished = np.flatnonzero(found.rows[:, -1] < 0)
        some = _checked(search(queries[unfinished]), k, passing)
        found.scores[unfinished], found.rows[unfinished] = some.scores, some.rows
    return found


def exact_nearest(
    stored: StoredVectors,
    queries: Float32[ndarray, "q d"],
    k: int,
    rows: Int64[ndarray, " n"],
    device: Device = CPU,
) -> Neighbours:
    """The `k` nearest of `rows`, by comparison with the stored vector of each.

    Fewer columns if there are fewer rows. Blocks of the vectors are in memory, never all of them.
    """
    return exact_neighbours(queries, stored.blocks(rows), min(k, len(rows)), device)


def _searches(
    index: Any,
    stored: StoredVectors,
    settings: Mapping[str, int],
    k: int,
    passing: Passing | None,
    max_exact_rows: int,
    device: Device,
    plain: Callable[[int, ndarray], Neighbours],
) -> list[Callable[[ndarray], Neighbours]]:
    """The searches to try, in order; `plain(k, queries)` is the one without a filter."""
    if passing is None:
        return [
            partial(plain, k),
            lambda queries: exact_nearest(stored, queries, k, np.arange(index.ntotal), device),
        ]
    searches: list[Callable[[ndarray], Neighbours]] = [
        lambda queries: search_passing(index, stored, settings, queries, k, passing),
        lambda queries: exact_nearest(stored, queries, k, passing.rows(), device),
    ]
    if passing.count <= max_exact_rows:
        return searches[1:]
    share = passing.count / passing.num_rows
    if share < _PLAIN_FROM_SHARE:
        return searches
    num = min(index.ntotal, math.ceil(_SPARE * k / share) + 8)
    return [partial(plain, num), *searches]


def _checked(found: Neighbours, k: int, passing: Passing | None) -> Neighbours:
    """The first `k` rows that pass of each result, then -1. FAISS pads with -1, and may return other rows."""
    if passing is None and found.rows.shape[1] == k and _is_complete(found):
        return found
    is_kept = found.rows >= 0 if passing is None else passing.contains(found.rows)
    if is_kept[:, :k].all():
        return Neighbours(found.scores[:, :k], found.rows[:, :k])
    order = np.argsort(~is_kept, axis=1, kind="stable")[:, :k]
    is_kept, scores, rows = (
        np.take_along_axis(values, order, 1) for values in (is_kept, found.scores, found.rows)
    )
    return Neighbours(np.where(is_kept, scores, np.float32(-np.inf)), np.where(is_kept, rows, -1))


def _is_complete(found: Neighbours) -> bool:
    """Whether every query has its neighbours. For one query numpy takes several times as long."""
    return all(row >= 0 for row in found.rows[:, -1].tolist())
