"""FAISS's search among the rows that pass a filter, with as much effort as filter and query need.

Where passing rows are anywhere, or near the query, few lists or candidates have the nearest of them. Where a
filter keeps regions away from the query, such as another category, many do. So the effort is doubled until
the result stays the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys.index.kinds import search_parameters
from raysys.index.neighbours import Neighbours
from raysys.index.passing import Passing

_faiss: Any = faiss  # whose type hints lack what Python adds
# The fewer of random rows pass, the further away are the nearest. With these powers of 1 / share the first
# search finds 0.96 of 10 down to a share of 1 % (100,000 vectors, nprobe 8 of 1,024 lists, efSearch 64).
_WIDENING = {"ef_search": 0.75, "nprobe": 0.5}


def search_passing(
    index: Any, settings: Mapping[str, int], queries: Float32[ndarray, "q d"], k: int, passing: Passing
) -> Neighbours:
    """The `k` nearest rows that pass, as FAISS finds them; -1 where it finds too few."""
    selector = _faiss.IDSelectorBitmap(passing.bitmap)
    found = Neighbours.none(len(queries), k)
    for number in range(len(queries)):
        query = queries[number : number + 1]
        for effort in _efforts(index, settings, query, passing):
            parameters = search_parameters(index, {**settings, **effort}, selector)
            last_rows = found.rows[number].copy()
            scores, rows = index.search(query, k, params=parameters)
            found.scores[number], found.rows[number] = scores[0], rows[0]
            if np.array_equal(last_rows, rows[0]):
                break
    return found


def _efforts(
    index: Any, settings: Mapping[str, int], query: Float32[ndarray, "1 d"], passing: Passing
) -> Iterator[dict[str, int]]:
    """Search parameters of growing effort; the last ones examine everything."""
    share = passing.count / passing.num_rows
    ivf = _faiss.try_extract_index_ivf(index)
    if ivf is not None:
        candidates, num_lists = _candidates(ivf, query, passing), 0
        wanted = settings["nprobe"] / ivf.nlist * passing.num_rows * share ** _WIDENING["nprobe"]
        while num_lists < ivf.nlist:
            num_lists = min(int(np.searchsorted(candidates, wanted)) + 1, ivf.nlist)
            yield {"nprobe": num_lists}
            wanted = 2 * max(wanted, candidates[num_lists - 1])
    elif "ef_search" in settings:
        ef_search = math.ceil(settings["ef_search"] * share ** -_WIDENING["ef_search"])
        yield {"ef_search": ef_search}
        while ef_search < index.ntotal:
            ef_search *= 2
            yield {"ef_search": ef_search}
    else:
        yield {}


def _candidates(ivf: Any, query: Float32[ndarray, "1 d"], passing: Passing) -> Int64[ndarray, " lists"]:
    """How many rows that pass are in the nearest list of a query, in the two nearest, and so on."""
    _, nearest_lists = ivf.quantizer.search(query, ivf.nlist)
    return np.asarray(passing.count_per_list(ivf)[nearest_lists[0]].cumsum())
