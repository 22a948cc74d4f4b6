"""The stored vectors of an index: any rows of it, decoded together.

FAISS's `reconstruct_batch` calls several functions for each row. To copy the codes of all rows and to decode
them in one call takes a fifth of the time (0.1 us a vector of 128 dimensions; IVF-SQ8 in a mapped file).
Cosines with 8-bit codes need no decoding: they are sums over the codes, in half of that time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray

from raysys.index.copies import FilterCopies
from raysys.index.lists import ListRows, has_array_lists, list_sizes, places_of
from raysys.index.passing import Passing

_faiss: Any = faiss  # its type stubs lack classes of its Python wrapper
_BLOCK_ROWS = 16_384  # 8 MB of 128 dimensions
_BLOCK_CODES = 2_048  # 1 MB of 128 dimensions: it stays in the cache of a core


class StoredVectors:
    """The vectors of a FAISS index as its codes keep them; nobody may add to the index meanwhile."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def of(cls, index: Any) -> StoredVectors:
        """Those of an index of any kind; an IVF index has a direct map."""
        holder = _faiss.downcast_index(index)
        if isinstance(holder, _faiss.IndexRefine):
            holder = _faiss.downcast_index(holder.refine_index)
        if isinstance(holder, _faiss.IndexHNSW):
            holder = _faiss.downcast_index(holder.storage)
        if isinstance(holder, _faiss.IndexFlatCodes) and holder.ntotal:
            return _InRows(index, holder)
        if isinstance(holder, _faiss.IndexIVF) and has_array_lists(holder) and holder.ntotal:
            return _InLists(index, holder)
        return cls(index)

    def vectors(self, rows: Int64[ndarray, " n"]) -> Float32[ndarray, "n d"]:
        """The vectors of these rows."""
        return np.asarray(self._index.reconstruct_batch(rows))

    def blocks(
        self, rows: Int64[ndarray, " n"]
    ) -> Iterator[tuple[Int64[ndarray, " m"], Float32[ndarray, "m d"]]]:
        """These rows with their vectors, some at a time, so that never all vectors are in memory."""
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = rows[start : start + _BLOCK_ROWS]
            yield block, self.vectors(block)

    def scores(
        self, query: Float32[ndarray, " d"], found: ListRows, of_lists: Float32[ndarray, " n"]
    ) -> Float32[ndarray, " n"]:
        """The inner products of a query with these rows.

        `of_lists` are those with the centroids of their lists.
        """
        blocks = [vectors @ query for _, vectors in self.blocks(found.rows.astype(np.int64))]
        return np.concatenate([np.empty(0, np.float32), *blocks])

    def copy_of(self, passing: Passing) -> Any | None:
        """An index with only the rows of `passing.superset`, if there is one; as `FilterCopies.of`."""
        return None


class _InRows(StoredVectors):
    """Of an index that has the code of row i in place i."""

    def __init__(self, index: Any, holder: Any) -> None:
        super().__init__(index)
        self._holder = holder
        codes = faiss.rev_swig_ptr(holder.codes.data(), holder.ntotal * holder.code_size)
        self._codes = codes.reshape(holder.ntotal, holder.code_size)

    def vectors(self, rows: Int64[ndarray, " n"]) -> Float32[ndarray, "n d"]:
        return np.asarray(self._holder.sa_decode(self._codes[rows]))


class _InLists(StoredVectors):
    """Of an IVF index, whose codes are those of the list of each row, anywhere in memory."""

    def __init__(self, index: Any, ivf: Any) -> None:
        super().__init__(index)
        self._ivf = ivf
        sizes = list_sizes(ivf)
        starts = np.array([int(ivf.invlists.get_codes(number)) for number in range(ivf.nlist)], np.int64)
        self._first = int(starts[sizes > 0].min())
        end = int((starts + sizes * ivf.code_size)[sizes > 0].max())
        self._starts = starts - self._first
        address = ctypes.cast(self._first, ctypes.POINTER(ctypes.c_uint8))
        memory = np.ctypeslib.as_array(address, shape=(end - self._first,))
        # Element i is the code that starts at byte i, if one does. A code that is one element is copied in
        # half the time that its bytes take.
        num = end - self._first - ivf.code_size + 1
        self._codes_at = np.ndarray((num,), f"V{ivf.code_size}", memory, strides=(1,))
        self._linear = _LinearCodes.of(ivf)
        has_copies = isinstance(_faiss.downcast_index(index), _faiss.IndexIVFScalarQuantizer)
        self._copies = FilterCopies(ivf, self._codes) if has_copies else None

    def vectors(self, rows: Int64[ndarray, " n"]) -> Float32[ndarray, "n d"]:
        lists, places = places_of(self._ivf, rows)
        prefix = self._ivf.coarse_code_size()  # a code that stands alone begins with its list
        codes = np.empty((len(rows), prefix + self._ivf.code_size), np.uint8)
        for byte in range(prefix):
            codes[:, byte] = lists >> (8 * byte)
        codes[:, prefix:] = self._codes(lists, places)
        return np.asarray(self._ivf.sa_decode(codes))

    def scores(
        self, query: Float32[ndarray, " d"], found: ListRows, of_lists: Float32[ndarray, " n"]
    ) -> Float32[ndarray, " n"]:
        if self._linear is None:
            return super().scores(query, found, of_lists)
        scores = self._linear.scores(query, self._codes(found.lists, found.places))
        return np.asarray(scores + of_lists if self._ivf.by_residual else scores)

    def copy_of(self, passing: Passing) -> Any | None:
        return None if self._copies is None else self._copies.of(passing)

    def _codes(self, lists: ndarray, places: ndarray) -> UInt8[ndarray, "n bytes"]:
        """The codes at these places of lists."""
        starts = self._starts[lists] + places.astype(np.int64) * self._ivf.code_size
        return np.asarray(self._codes_at[starts].view(np.uint8).reshape(len(starts), self._ivf.code_size))


@dataclass(frozen=True)
class _LinearCodes:
    """Codes of a byte a dimension, which stands for `low + step * (code + 0.5)` (FAISS, QT_8bit)."""

    low: Float32[ndarray, " d"]
    step: Float32[ndarray, " d"]

    @classmethod
    def of(cls, ivf: Any) -> _LinearCodes | None:
        """The codes of an IVF index; None if they are others."""
        quantizer = getattr(ivf, "sq", None)
        if quantizer is None or quantizer.qtype != _faiss.ScalarQuantizer.QT_8bit:
            return None
        low, width = _faiss.vector_to_array(quantizer.trained).reshape(2, ivf.d)
        return cls(low, width / np.float32(255))

    def scores(self, query: Float32[ndarray, " d"], codes: UInt8[ndarray, "n d"]) -> Float32[ndarray, " n"]:
        """The inner products of a query with what the codes stand for."""
        weights = query * self.step
        scores = np.empty(len(codes), np.float32)
        for start in range(0, len(codes), _BLOCK_CODES):
            block = codes[start : start + _BLOCK_CODES].astype(np.float32)
            np.matmul(block, weights, out=scores[start : start + _BLOCK_CODES])
        return np.asarray(scores + np.float32(query @ self.low + weights.sum() / 2))
