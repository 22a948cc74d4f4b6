"""Copies of an IVF-SQ index that have only the rows that pass a frequent filter.

To read 10 % of the rows of a list takes as long as FAISS takes for all of them: they are scattered in memory.
In a copy they are contiguous, and a search takes no time for other rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import faiss
import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from raysys.index.passing import Passing

_faiss: Any = faiss  # its type stubs lack classes of its Python wrapper
NUM_SEARCHES = 100  # of a filter without a copy. To make one takes the time that about as many searches save
MAX_SHARE = 0.25  # of the memory of the index, for all of its copies
_ID_BYTES = 8
_LIST_BYTES = 192  # of a list, beside its rows (FAISS 1.15, measured)
_BLOCK_ROWS = 16_384


class FilterCopies:
    """The copies of one index, a FAISS IndexIVFScalarQuantizer that nobody adds to. Threads may share it.

    Together they take at most a quarter of the memory of its codes and ids; the least recently used ones
    leave. A copy also leaves when its `Passing` is deleted.
    """

    def __init__(self, ivf: Any, codes: Callable[[ndarray, ndarray], UInt8[ndarray, "n bytes"]]) -> None:
        """`codes` returns those at some places of lists."""
        self._ivf, self._codes = ivf, codes
        self._row_bytes, self._lists_bytes = ivf.code_size + _ID_BYTES, ivf.nlist * _LIST_BYTES
        self._max_bytes = int(MAX_SHARE * self._row_bytes * ivf.ntotal)
        self._uses: WeakKeyDictionary[Passing, _Use] = WeakKeyDictionary()  # the last one used is the last
        self._changing, self._making = threading.Lock(), threading.Lock()

    @property
    def nbytes(self) -> int:
        """The memory of all copies."""
        return sum(use.nbytes for use in list(self._uses.values()))

    def of(self, passing: Passing) -> Any | None:
        """A copy for one search, with the rows of `passing.superset`; None if this filter has none.

        It is a FAISS index with the lists of the original. A filter gets a copy when it was searched
        `NUM_SEARCHES` times. One thread at a time makes one; others search without it meanwhile.
        """
        superset = passing.superset
        num_bytes = self._lists_bytes + superset.count * self._row_bytes
        if num_bytes > self._max_bytes:
            return None
        with self._changing:
            use = self._uses.pop(superset, None) or _Use()
            self._uses[superset] = use
            use.num_searches += 1
        if use.index is None and use.num_searches > NUM_SEARCHES and self._making.acquire(blocking=False):
            try:
                if use.index is None:
                    self._make_room(num_bytes)
                    use.index, use.nbytes = self._copied(superset), num_bytes
            finally:
                self._making.release()
        return use.index

    def _make_room(self, num_bytes: int) -> None:
        """Delete the least recently used copies until one of this size fits."""
        with self._changing:
            for passing, use in list(self._uses.items()):
                if self.nbytes + num_bytes <= self._max_bytes:
                    break
                if use.index is not None:
                    del self._uses[passing]

    def _copied(self, passing: Passing) -> Any:
        ivf, rows = self._ivf, passing.by_list(self._ivf)
        index = _faiss.IndexIVFScalarQuantizer(
            ivf.quantizer, ivf.d, ivf.nlist, ivf.sq.qtype, ivf.metric_type, ivf.by_residual
        )
        _faiss.copy_array_to_vector(_faiss.vector_to_array(ivf.sq.trained), index.sq.trained)
        index.is_trained = True
        for numbers in _blocks(rows.counts):
            found = rows.of_lists(numbers)
            codes, ids = self._codes(found.lists, found.places), found.rows.astype(np.int64)
            start = 0
            for number, count in zip(numbers.tolist(), rows.counts[numbers].tolist(), strict=True):
                index.invlists.add_entries(
                    number, count, faiss.swig_ptr(ids[start:]), faiss.swig_ptr(codes[start:])
                )
                start += count
        index.ntotal = passing.count
        return index


@dataclass
class _Use:
    """Of a filter."""

    num_searches: int = 0
    index: Any | None = None
    """The copy."""
    nbytes: int = 0


def _blocks(counts: Int64[ndarray, " lists"]) -> list[Int64[ndarray, " n"]]:
    """The numbers of the lists that have rows, some at a time: about `_BLOCK_ROWS` rows."""
    numbers = np.flatnonzero(counts)
    block_of_each = counts[numbers].cumsum() // _BLOCK_ROWS
    return np.split(numbers, np.flatnonzero(np.diff(block_of_each)) + 1)
