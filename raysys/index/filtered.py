"""Search among the rows that pass a filter, with as much effort as filter and query need.

In the nearest lists of an IVF index only the rows that pass are read, unless they are many; of a frequent
filter there is a copy. Where a filter keeps random rows, their share says how many lists have the nearest of
them. Where it keeps regions, such as a category, few lists do if the query is in it, and many if it is not.
Then the effort grows until the result stays the same. A graph does not tell where its rows are, so its effort
always grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import faiss
import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys.index.kinds import search_parameters
from raysys.index.neighbours import Neighbours, largest, merged
from raysys.index.passing import Passing, RowsByList
from raysys.index.stored import StoredVectors

_faiss: Any = faiss  # whose type hints lack what Python adds
# The fewer of random rows pass, the further away are the nearest. With these powers of 1 / share the first
# search finds 0.96 of 10 down to a share of 1 % (100,000 vectors, nprobe 8 of 1,024 lists, efSearch 64).
_WIDENING = {"ef_search": 0.75, "nprobe": 0.5}
# A result that three times as many rows that pass do not change finds 0.956 of 10 or more, and twice as many
# 0.932 (a million vectors, nprobe 32 of 4,096 lists, regions of 50, 10 and 1 %; 0.965 without a filter).
_GROWTH = 3
_DENSE = 0.2  # share of the rows that pass from which FAISS takes less time than reading only these


def search_passing(
    index: Any,
    stored: StoredVectors,
    settings: Mapping[str, int],
    queries: Float32[ndarray, "q d"],
    k: int,
    passing: Passing,
) -> Neighbours:
    """The `k` nearest rows that pass, as the index finds them; -1 where exact search takes less time."""
    ivf = _faiss.try_extract_index_ivf(index)
    found = Neighbours.none(len(queries), k)
    for number in range(len(queries)):
        query = queries[number : number + 1]
        if ivf is not None:
            results = _results_of_lists(index, ivf, stored, settings["nprobe"], query, k, passing)
        else:
            results = _results_of_faiss(index, settings, query, k, passing)
        last_rows = None
        for one in results:
            found.scores[number], found.rows[number] = one.scores[0], one.rows[0]
            if last_rows is not None and np.array_equal(last_rows, one.rows):
                break
            last_rows = one.rows
    return found


def _results_of_lists(
    index: Any,
    ivf: Any,
    stored: StoredVectors,
    nprobe: int,
    query: Float32[ndarray, "1 d"],
    k: int,
    passing: Passing,
) -> Iterator[Neighbours]:
    """Results of growing effort, by comparison of the query with rows that pass in the nearest lists."""
    num_random = math.ceil(nprobe * (passing.count / passing.num_rows) ** -_WIDENING["nprobe"])
    num_random = min(num_random, ivf.nlist)
    search = partial(_search_lists, index, stored, stored.copy_of(passing), query, k, passing)
    if passing.is_even(ivf):
        yield search(_Lists(*ivf.quantizer.search(query, num_random)))
        return
    found: list[Neighbours] = []
    for lists in _growing_lists(ivf, num_random, query, passing.by_list(ivf)):
        found = [merged([*found, search(lists)], k)]
        yield found[0]


class _Lists(NamedTuple):
    """Some lists, with the scores of their centroids."""

    scores: Float32[ndarray, "1 n"]
    numbers: Int64[ndarray, "1 n"]


def _growing_lists(
    ivf: Any, num_random: int, query: Float32[ndarray, "1 d"], by_list: RowsByList
) -> Iterator[_Lists]:
    """The next nearest lists, each time until there are `_GROWTH` times as many rows that pass in all.

    At first they have as many as the `num_random` nearest lists would have if random rows passed. Lists
    without such rows are left out.
    """
    ranked = _ranked_lists(ivf, query, np.flatnonzero(by_list.counts))
    seen = by_list.counts[ranked.numbers[0]].cumsum()
    wanted, stop = num_random * len(by_list.rows) / ivf.nlist, 0
    while stop < len(seen):
        first, stop = stop, min(int(np.searchsorted(seen, wanted)) + 1, len(seen))
        yield _Lists(ranked.scores[:, first:stop], ranked.numbers[:, first:stop])
        wanted = _GROWTH * max(wanted, seen[stop - 1])


def _ranked_lists(ivf: Any, query: Float32[ndarray, "1 d"], numbers: Int64[ndarray, " n"]) -> _Lists:
    """These lists, nearest first: in a seventh of the time of FAISS's search for all (4,096 lists)."""
    scores = np.empty(ivf.nlist, np.float32)
    centroids = _faiss.downcast_index(ivf.quantizer).get_xb()
    _faiss.fvec_inner_products_ny(faiss.swig_ptr(scores), faiss.swig_ptr(query), centroids, ivf.d, ivf.nlist)
    numbers = numbers[np.argsort(-scores[numbers])]
    return _Lists(scores[None, numbers], numbers[None])


def _search_lists(
    index: Any,
    stored: StoredVectors,
    copy: Any | None,
    query: Float32[ndarray, "1 d"],
    k: int,
    passing: Passing,
    lists: _Lists,
) -> Neighbours:
    """The `k` nearest of the rows of these lists that pass.

    `copy` has no other rows, but those that are hidden. Without it, FAISS goes through all rows of a list, in
    less time a row. It does so where most pass, unless what it compares is too coarse.
    """
    if copy is not None:
        is_complete = passing.superset is passing
        return _faiss_in_lists(copy, query, k, None if is_complete else passing, lists)
    numbers, by_list = lists.numbers[0], passing.by_list(_faiss.extract_index_ivf(index))
    is_dense = by_list.counts[numbers].sum() >= _DENSE * by_list.sizes[numbers].sum()
    if is_dense and isinstance(index, _faiss.IndexIVF):
        return _faiss_in_lists(index, query, k, passing, lists)
    return _nearest_in_lists(stored, query, k, by_list, lists)


def _faiss_in_lists(
    ivf: Any, query: Float32[ndarray, "1 d"], k: int, passing: Passing | None, lists: _Lists
) -> Neighbours:
    """As `_search_lists`, by FAISS, among all rows if `passing` is None."""
    found = Neighbours.none(1, k)
    num = lists.numbers.size
    if num:  # FAISS's Python function for this takes no selector
        selector = None if passing is None else _faiss.IDSelectorBitmap(passing.bitmap)
        ivf.search_preassigned_c(
            1,
            faiss.swig_ptr(query),
            k,
            faiss.swig_ptr(lists.numbers),
            faiss.swig_ptr(lists.scores),
            faiss.swig_ptr(found.scores),
            faiss.swig_ptr(found.rows),
            False,
            _faiss.SearchParametersIVF(nprobe=num, sel=selector),
        )
    return found


def _nearest_in_lists(
    stored: StoredVectors, query: Float32[ndarray, "1 d"], k: int, by_list: RowsByList, lists: _Lists
) -> Neighbours:
    """As `_search_lists`, by comparison with the stored vectors."""
    found = by_list.of_lists(lists.numbers[0])
    of_lists = np.repeat(lists.scores[0], by_list.counts[lists.numbers[0]])
    scores = stored.scores(query[0], found, of_lists)
    best = largest(scores, min(k, len(scores)))
    nearest = Neighbours(scores[None, best], found.rows[None, best].astype(np.int64))
    return merged([Neighbours.none(1, k), nearest], k)


def _results_of_faiss(
    index: Any, settings: Mapping[str, int], query: Float32[ndarray, "1 d"], k: int, passing: Passing
) -> Iterator[Neighbours]:
    """Results of FAISS with a selector. The last one examines enough, or it is empty, for an exact search."""
    selector = _faiss.IDSelectorBitmap(passing.bitmap)

    def search(settings: Mapping[str, int]) -> Neighbours:
        return Neighbours(*index.search(query, k, params=search_parameters(index, settings, selector)))

    if "ef_search" not in settings:
        yield search(settings)
        return
    share = passing.count / passing.num_rows
    ef_search = math.ceil(settings["ef_search"] * share ** -_WIDENING["ef_search"])
    # Each candidate is compared with its links, each of which is elsewhere in memory.
    while ef_search * index.hnsw.nb_neighbors(0) < passing.count:
        yield search({**settings, "ef_search": ef_search})
        ef_search *= 2
    yield Neighbours.none(1, k)
