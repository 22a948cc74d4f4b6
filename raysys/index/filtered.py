"""FAISS's search among the rows that pass a filter, with as much effort as filter and query need.

Where a filter keeps random rows, their share says how many lists have the nearest of them. Where it keeps
regions, such as a category, few lists do if the query is in it, and many if it is not. Then the effort grows
until the result stays the same. A graph does not tell where its rows are, so its effort always grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import faiss
import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys.index.kinds import search_parameters
from raysys.index.neighbours import Neighbours, merged
from raysys.index.passing import Passing

_faiss: Any = faiss  # whose type hints lack what Python adds
# The fewer of random rows pass, the further away are the nearest. With these powers of 1 / share the first
# search finds 0.96 of 10 down to a share of 1 % (100,000 vectors, nprobe 8 of 1,024 lists, efSearch 64).
_WIDENING = {"ef_search": 0.75, "nprobe": 0.5}
# A result that three times as many rows that pass do not change finds 0.956 of 10 or more, and twice as many
# 0.932 (a million vectors, nprobe 32 of 4,096 lists, regions of 50, 10 and 1 %; 0.965 without a filter).
_GROWTH = 3
_RANKED = 4  # lists that are ranked at first, as a multiple of those that random rows would need


def search_passing(
    index: Any, settings: Mapping[str, int], queries: Float32[ndarray, "q d"], k: int, passing: Passing
) -> Neighbours:
    """The `k` nearest rows that pass, as FAISS finds them; -1 where exact search takes less time."""
    selector = _faiss.IDSelectorBitmap(passing.bitmap)
    found = Neighbours.none(len(queries), k)
    for number in range(len(queries)):
        last_rows = None
        for one in _results(index, settings, queries[number : number + 1], k, passing, selector):
            found.scores[number], found.rows[number] = one.scores[0], one.rows[0]
            if last_rows is not None and np.array_equal(last_rows, one.rows):
                break
            last_rows = one.rows
    return found


def _results(
    index: Any,
    settings: Mapping[str, int],
    query: Float32[ndarray, "1 d"],
    k: int,
    passing: Passing,
    selector: Any,
) -> Iterator[Neighbours]:
    """Results of growing effort. The last one examines enough, or it is empty, for an exact search."""
    share = passing.count / passing.num_rows

    def search(**effort: int) -> Neighbours:
        parameters = search_parameters(index, {**settings, **effort}, selector)
        return Neighbours(*index.search(query, k, params=parameters))

    ivf = _faiss.try_extract_index_ivf(index)
    if ivf is not None:
        num_random = math.ceil(settings["nprobe"] * share ** -_WIDENING["nprobe"])
        if passing.is_even(ivf):
            yield search(nprobe=num_random)
            return
        found = Neighbours.none(1, k)
        for lists in _growing_lists(ivf, num_random, query, passing):
            if isinstance(index, _faiss.IndexIVF):
                found = merged([found, _search_lists(ivf, query, k, lists, selector)], k)
            else:  # candidates are re-ranked together
                found = search(nprobe=lists.nprobe)
            yield found
    elif "ef_search" in settings:
        ef_search = math.ceil(settings["ef_search"] * share ** -_WIDENING["ef_search"])
        # Each candidate is compared with its links, each of which is elsewhere in memory.
        while ef_search * index.hnsw.nb_neighbors(0) < passing.count:
            yield search(ef_search=ef_search)
            ef_search *= 2
        yield Neighbours.none(1, k)
    else:
        yield search()


class _Lists(NamedTuple):
    """Some lists with rows that pass."""

    numbers: Int64[ndarray, "1 n"]
    scores: Float32[ndarray, "1 n"]
    """Of their centroids."""
    nprobe: int
    """How many of the nearest lists include these."""


def _growing_lists(
    ivf: Any, num_random: int, query: Float32[ndarray, "1 d"], passing: Passing
) -> Iterator[_Lists]:
    """The nearest lists that have rows that pass, each time `_GROWTH` times as many such rows in all.

    At first they have as many as the `num_random` nearest lists would have if random rows passed.
    """
    in_list = passing.count_per_list(ivf)
    num_ranked = min(_RANKED * num_random, ivf.nlist)
    scores, numbers = ivf.quantizer.search(query, num_ranked)
    seen = in_list[numbers[0]].cumsum()
    wanted, stop = num_random * passing.count / ivf.nlist, 0
    while stop < ivf.nlist:
        if seen[-1] < wanted and num_ranked < ivf.nlist:
            num_ranked = ivf.nlist
            all_scores, all_numbers = ivf.quantizer.search(query, num_ranked)
            is_new = ~np.isin(all_numbers, numbers)  # the order of equally near lists may differ
            scores = np.concatenate([scores, all_scores[is_new][None]], axis=1)
            numbers = np.concatenate([numbers, all_numbers[is_new][None]], axis=1)
            seen = in_list[numbers[0]].cumsum()
        first, stop = stop, min(int(np.searchsorted(seen, wanted)) + 1, num_ranked)
        places = first + np.flatnonzero(in_list[numbers[0, first:stop]])
        yield _Lists(numbers[:, places], scores[:, places], stop)
        wanted = _GROWTH * max(wanted, seen[stop - 1])


def _search_lists(
    ivf: Any, query: Float32[ndarray, "1 d"], k: int, lists: _Lists, selector: Any
) -> Neighbours:
    """The `k` nearest rows in these lists. FAISS's Python function for this takes no selector."""
    found, num_lists = Neighbours.none(1, k), lists.numbers.shape[1]
    if num_lists:
        ivf.search_preassigned_c(
            1,
            faiss.swig_ptr(query),
            k,
            faiss.swig_ptr(lists.numbers),
            faiss.swig_ptr(lists.scores),
            faiss.swig_ptr(found.scores),
            faiss.swig_ptr(found.rows),
            False,
            _faiss.SearchParametersIVF(nprobe=num_lists, sel=selector),
        )
    return found
