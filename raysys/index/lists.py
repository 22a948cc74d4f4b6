"""The lists of an IVF index: how many rows each has, and where a row is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from jaxtyping import Int64, UInt8, UInt32
from numpy import ndarray

_faiss: Any = faiss  # its type stubs lack classes of its Python wrapper


@dataclass(frozen=True)
class ListRows:
    """Rows in lists of an IVF index."""

    rows: UInt32[ndarray, " n"]
    lists: Int64[ndarray, " n"]
    """The list of each row."""
    places: UInt32[ndarray, " n"]
    """The place of each row in its list."""

    def __len__(self) -> int:
        return len(self.rows)


def list_rows(ivf: Any, rows: Int64[ndarray, " n"]) -> ListRows:
    """These rows with their places; `ivf` is a FAISS IndexIVF, which gets a direct map if it has none."""
    if ivf.direct_map.no():
        ivf.make_direct_map()
    lists, places = places_of(ivf, rows)
    return ListRows(rows.astype(np.uint32), lists, places.astype(np.uint32))


def list_sizes(ivf: Any) -> Int64[ndarray, " lists"]:
    """The number of rows of each list."""
    return np.fromiter((ivf.invlists.list_size(number) for number in range(ivf.nlist)), np.int64)


def places_of(ivf: Any, rows: ndarray) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " n"]]:
    """The list of each row, and its place in the list (FAISS, `lo_build`); `ivf` has a direct map."""
    places: UInt8[ndarray, " n"] = faiss.rev_swig_ptr(ivf.direct_map.array.data(), ivf.ntotal)[rows]
    return places >> 32, places & 0xFFFFFFFF


def has_array_lists(ivf: Any) -> bool:
    """Whether the codes of a list are one array; those of fast scan are in blocks."""
    return isinstance(_faiss.downcast_InvertedLists(ivf.invlists), _faiss.ArrayInvertedLists)
