"""The stored vectors of an index: any rows of it, decoded together.

FAISS's `reconstruct_batch` calls several functions for each row. To copy the codes of all rows and to decode
them in one call takes a fifth of the time (0.1 us a vector of 128 dimensions; IVF-SQ8 in a mapped file).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray

_faiss: Any = faiss  # its type stubs lack classes of its Python wrapper
_BLOCK_ROWS = 16_384  # 8 MB of 128 dimensions


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
        if isinstance(holder, _faiss.IndexIVF) and _has_array_lists(holder) and holder.ntotal:
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
        # Row i of the window is the code that starts at byte i, if one does.
        shape = (end - self._first - ivf.code_size + 1, ivf.code_size)
        self._window = np.lib.stride_tricks.as_strided(memory, shape, (1, 1), writeable=False)

    def vectors(self, rows: Int64[ndarray, " n"]) -> Float32[ndarray, "n d"]:
        lists, places = _places_of(self._ivf, rows)
        prefix = self._ivf.coarse_code_size()  # a code that stands alone begins with its list
        codes = np.empty((len(rows), prefix + self._ivf.code_size), np.uint8)
        for byte in range(prefix):
            codes[:, byte] = lists >> (8 * byte)
        codes[:, prefix:] = self._window[self._starts[lists] + places * self._ivf.code_size]
        return np.asarray(self._ivf.sa_decode(codes))


def lists_of(ivf: Any, rows: Int64[ndarray, " n"]) -> Int64[ndarray, " n"]:
    """The list of each row; `ivf` is a FAISS IndexIVF, which gets a direct map if it has none."""
    if ivf.direct_map.no():
        ivf.make_direct_map()
    return _places_of(ivf, rows)[0]


def list_sizes(ivf: Any) -> Int64[ndarray, " lists"]:
    """The number of rows of each list."""
    return np.fromiter((ivf.invlists.list_size(number) for number in range(ivf.nlist)), np.int64)


def _places_of(ivf: Any, rows: ndarray) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " n"]]:
    """The list of each row, and its place in the list (FAISS, `lo_build`)."""
    places: UInt8[ndarray, " n"] = faiss.rev_swig_ptr(ivf.direct_map.array.data(), ivf.ntotal)[rows]
    return places >> 32, places & 0xFFFFFFFF


def _has_array_lists(ivf: Any) -> bool:
    """Whether the codes of a list are one array; those of fast scan are in blocks."""
    return isinstance(_faiss.downcast_InvertedLists(ivf.invlists), _faiss.ArrayInvertedLists)
