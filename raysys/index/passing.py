"""The rows of an index that pass a filter, as bitmaps: one bit a row, in the order that FAISS reads."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64, UInt8
from numpy import ndarray

from raysys.index.filters import Filter, meets

_CACHE_BYTES = 64 << 20  # 50 conditions over 10 million rows


class Passing:
    """Rows that pass, of an index of `num_rows`."""

    def __init__(self, bitmap: UInt8[ndarray, " bytes"], num_rows: int) -> None:
        self.bitmap = bitmap
        """Bit i % 8 of byte i // 8 is row i."""
        self.num_rows = num_rows
        self.count = int(np.bitwise_count(bitmap).sum(dtype=np.int64))

    @classmethod
    def of_mask(cls, mask: Bool[ndarray, " n"]) -> Passing:
        """The rows where `mask` is true."""
        return cls(np.packbits(mask, bitorder="little"), len(mask))

    def rows(self) -> Int64[ndarray, " count"]:
        """The rows that pass, ascending."""
        places = np.flatnonzero(self.bitmap)
        bits = np.unpackbits(self.bitmap[places], bitorder="little").reshape(-1, 8)
        byte, bit = np.nonzero(bits)
        return np.asarray(8 * places[byte] + bit, np.int64)

    def contains(self, rows: Int64[ndarray, " *shape"]) -> Bool[ndarray, " *shape"]:
        """Which of these rows pass; never row -1."""
        is_row = rows >= 0
        bits = self.bitmap[np.where(is_row, rows, 0) >> 3] >> (rows & 7).astype(np.uint8)
        return np.asarray(is_row & (bits & 1).astype(bool))


class FilterBitmaps:
    """Evaluates filters on the columns of one file of items, and caches the bitmap of each condition.

    The least recently used conditions leave a full cache. Threads may share it.
    """

    def __init__(self, columns: Mapping[str, pa.Array], num_rows: int, max_bytes: int = _CACHE_BYTES) -> None:
        self._columns, self._num_rows, self._max_bytes = columns, num_rows, max_bytes
        self._bitmaps: OrderedDict[bytes, ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """The number of cached conditions."""
        return len(self._bitmaps)

    def passing(self, where: Filter) -> Passing:
        """The rows that meet every condition of a valid filter. Raises: as `meets`."""
        bitmap = np.packbits(np.ones(self._num_rows, bool), bitorder="little")
        for name, conditions in where.items():
            for operator, operand in conditions.items():
                bitmap = bitmap & self._bitmap(name, operator, operand)
        return Passing(bitmap, self._num_rows)

    def _bitmap(self, name: str, operator: str, operand: object) -> ndarray:
        key = hashlib.sha256(repr((name, operator, operand)).encode("utf-8", "backslashreplace")).digest()
        with self._lock:
            if key in self._bitmaps:
                self._bitmaps.move_to_end(key)
                return self._bitmaps[key]
        column = self._columns.get(name)
        mask = meets(pa.nulls(self._num_rows) if column is None else column, operator, operand)
        bitmap = np.packbits(mask, bitorder="little")
        with self._lock:
            self._bitmaps[key] = bitmap
            while len(self._bitmaps) > 1 and len(self._bitmaps) * bitmap.nbytes > self._max_bytes:
                self._bitmaps.popitem(last=False)
        return bitmap
