"""The nearest rows of one FAISS index, of all rows or of those that pass a filter.

Three searches share the work:

- exact search compares the query with every row that passes, and is the fastest where few pass;
- the FAISS index with a selector examines more candidates, the fewer pass;
- where most rows pass, a plain search for more neighbours is filtered afterwards.

Every result is checked: a query with fewer neighbours than exist is searched again with the next of these
searches, exactly in the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import faiss
import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys.index.passing import Passing

_faiss: Any = faiss  # whose type hints lack what Python adds
_PLAIN_FROM_SHARE = 0.5  # of rows that pass: a plain search for twice as many has enough that pass
_SPARE = 1.3  # factor on the number that a plain search is expected to need
_BLOCK_ROWS = 16_384  # vectors of an exact search in memory at a time: 8 MB of 128 dimensions

Found: TypeAlias = tuple[Float32[ndarray, "q k"], Int64[ndarray, "q k"]]


def nearest(
    index: Any,
    queries: Float32[ndarray, "q d"],
    k: int,
    passing: Passing | None = None,
    *,
    max_exact_rows: int = 0,
) -> Found:
    """Scores and rows of the `k` nearest rows of each query, best first; fewer columns if fewer rows pass.

    Where at most `max_exact_rows` rows pass, the search is exact.
    """
    num_rows = index.ntotal if passing is None else passing.count
    k = min(k, num_rows)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    unfinished = np.arange(len(queries)) if k else np.arange(0)
    for search in _searches(index, k, passing, max_exact_rows):
        if not len(unfinished):
            break
        scores[unfinished], rows[unfinished] = _checked(*search(queries[unfinished]), k, passing)
        unfinished = unfinished[rows[unfinished, -1] < 0]
    return scores, rows


def exact_nearest(
    index: Any, queries: Float32[ndarray, "q d"], k: int, rows: Int64[ndarray, " n"] | None = None
) -> Found:
    """The `k` nearest of `rows` (all by default), by comparison with the stored vector of each.

    Blocks of the vectors are in memory, never all of them.
    """
    rows = np.arange(index.ntotal) if rows is None else rows
    scores, found = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        vectors = index.reconstruct_batch(block)
        new, places = faiss.knn(queries, vectors, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, found = np.hstack([scores, new]), np.hstack([found, block[places]])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, found = np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)
    return scores, found


def search_with_selector(index: Any, queries: Float32[ndarray, "q d"], k: int, passing: Passing) -> Found:
    """The nearest rows that pass, as FAISS finds them; -1 where it finds too few."""
    scores, rows = index.search(queries, k, params=_parameters(index, passing))
    return scores, rows


def _searches(
    index: Any, k: int, passing: Passing | None, max_exact_rows: int
) -> list[Callable[[ndarray], Found]]:
    """The searches to try, in order."""
    if passing is None:
        return [lambda queries: index.search(queries, k), lambda queries: exact_nearest(index, queries, k)]
    searches: list[Callable[[ndarray], Found]] = [
        lambda queries: search_with_selector(index, queries, k, passing),
        lambda queries: exact_nearest(index, queries, k, passing.rows()),
    ]
    if passing.count <= max_exact_rows:
        return searches[1:]
    share = passing.count / passing.num_rows
    if share < _PLAIN_FROM_SHARE:
        return searches
    more = min(index.ntotal, math.ceil(_SPARE * k / share) + 8)
    return [lambda queries: index.search(queries, more), *searches]


def _checked(scores: ndarray, rows: ndarray, k: int, passing: Passing | None) -> Found:
    """The first `k` rows that pass of each result, then -1. FAISS pads with -1, and may return other rows."""
    is_kept = rows >= 0 if passing is None else passing.contains(rows)
    order = np.argsort(~is_kept, axis=1, kind="stable")[:, :k]
    is_kept = np.take_along_axis(is_kept, order, 1)
    scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return np.where(is_kept, scores, -np.inf).astype(np.float32), np.where(is_kept, rows, -1)


def _parameters(index: Any, passing: Passing) -> Any:
    """Search parameters with a selector. The fewer rows pass, the further away are the nearest of them.

    The exponents keep recall@10 at 0.96 down to 1 % (100,000 vectors, nprobe 8 of 1,024 lists, efSearch 64).
    """
    selector, share = _faiss.IDSelectorBitmap(passing.bitmap), passing.count / passing.num_rows
    if isinstance(index, faiss.IndexHNSW):
        ef_search = min(index.ntotal, math.ceil(index.hnsw.efSearch * share**-0.75))
        return _faiss.SearchParametersHNSW(efSearch=ef_search, sel=selector)
    if isinstance(index, faiss.IndexIVF):
        nprobe = min(index.nlist, math.ceil(index.nprobe * share**-0.5))
        return _faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
    return _faiss.SearchParameters(sel=selector)
