"""The rows of an index that pass a filter, as bitmaps: one bit a row, in the order that FAISS reads."""

from __future__ import annotations

import copy
import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, overload

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64, UInt8, UInt32
from numpy import ndarray

from raysys.index.filters import Filter, meets
from raysys.index.lists import ListRows, list_rows, list_sizes

Condition: TypeAlias = tuple[str, str, Any]
"""Attribute, operator and operand."""

_CACHE_BYTES = 64 << 20  # 50 conditions over 10 million rows, less what is kept of rows by list
_MAX_KEPT_ROWS = 16_384  # 128 kB: as many as are searched exactly
_EVEN = 0.3  # largest standard deviation between lists, as a share of the mean


@dataclass(frozen=True)
class RowsByList:
    """Rows of an IVF index, in the order of its lists."""

    rows: UInt32[ndarray, " n"]
    """Ascending in each list."""
    places: UInt32[ndarray, " n"]
    """The place of each row in its list."""
    starts: Int64[ndarray, " lists"]
    """Where each list begins among the rows."""
    counts: Int64[ndarray, " lists"]
    """The number of these rows in each list."""
    sizes: Int64[ndarray, " lists"]
    """The number of all rows in each list."""

    @classmethod
    def of(cls, rows: Int64[ndarray, " n"], ivf: Any) -> RowsByList:
        """Ascending rows by the lists of a FAISS IndexIVF."""
        found = list_rows(ivf, rows)
        lists = found.lists
        # Numbers of 16 bits are sorted by their digits, in a tenth of the time.
        order = np.argsort(lists.astype(np.uint16) if ivf.nlist <= 1 << 16 else lists, kind="stable")
        counts = np.bincount(lists, minlength=ivf.nlist)
        starts = counts.cumsum() - counts
        return cls(found.rows[order], found.places[order], starts, counts, list_sizes(ivf))

    @property
    def nbytes(self) -> int:
        """The memory that they take."""
        arrays = (self.rows, self.places, self.starts, self.counts, self.sizes)
        return sum(array.nbytes for array in arrays)

    def of_lists(self, numbers: Int64[ndarray, " m"]) -> ListRows:
        """The rows of these lists, one list after the other."""
        counts = self.counts[numbers]
        skipped = np.repeat(self.starts[numbers] - (counts.cumsum() - counts), counts)
        chosen = skipped + np.arange(len(skipped))
        return ListRows(self.rows[chosen], np.repeat(numbers, counts), self.places[chosen])

    def where(self, is_kept: Callable[[ndarray], ndarray]) -> RowsByList:
        """Without the rows that `is_kept` is false for."""
        kept = is_kept(self.rows.astype(np.int64))
        num_before = np.append(0, kept.cumsum())
        counts = num_before[self.starts + self.counts] - num_before[self.starts]
        return RowsByList(self.rows[kept], self.places[kept], num_before[self.starts], counts, self.sizes)


class Passing:
    """Rows that pass, of an index of `num_rows`."""

    def __init__(self, bitmap: UInt8[ndarray, " bytes"], num_rows: int) -> None:
        self.bitmap = bitmap
        """Bit i % 8 of byte i // 8 is row i."""
        self.num_rows = num_rows
        self.count = int(np.bitwise_count(bitmap).sum(dtype=np.int64))
        self._rows: ndarray | None = None
        self._by_list: RowsByList | None = None
        self._is_even: bool | None = None
        self._superset: Passing | None = None

    @property
    def nbytes(self) -> int:
        """The memory of the bitmap and of what was derived from it."""
        rows = 0 if self._rows is None else self._rows.nbytes
        return self.bitmap.nbytes + rows + (0 if self._by_list is None else self._by_list.nbytes)

    @property
    def superset(self) -> Passing:
        """The rows of a filter before hidden ones were left out; `self` if none was."""
        return self._superset or self

    @classmethod
    def of_mask(cls, mask: Bool[ndarray, " n"]) -> Passing:
        """The rows where `mask` is true."""
        return cls(np.packbits(mask, bitorder="little"), len(mask))

    def also(self, other: Passing) -> Passing:
        """The rows that are in both; most rows of `self` should be."""
        both = Passing(self.bitmap & other.bitmap, self.num_rows)
        both._superset = self
        return both

    def rows(self) -> Int64[ndarray, " count"]:
        """The rows that pass, ascending."""
        if self._rows is not None:
            return self._rows
        places = np.flatnonzero(self.bitmap)
        bits = np.unpackbits(self.bitmap[places], bitorder="little").reshape(-1, 8)
        byte, bit = np.nonzero(bits)
        rows = np.asarray(8 * places[byte] + bit, np.int64)
        if self.count <= _MAX_KEPT_ROWS:
            self._rows = rows
        return rows

    def by_list(self, ivf: Any) -> RowsByList:
        """The rows that pass of each list; `ivf` is a FAISS IndexIVF that these are the rows of."""
        if self._by_list is None and self._superset is not None:
            self._by_list = self._superset.by_list(ivf).where(self.contains)
        if self._by_list is None:
            self._by_list = RowsByList.of(self.rows(), ivf)
        return self._by_list

    def is_even(self, ivf: Any) -> bool:
        """Whether the lists have about equal shares of rows that pass, as of random rows. `ivf` as above."""
        if self._is_even is None and self._superset is not None:
            self._is_even = self._superset.is_even(ivf)
        if self._is_even is None:
            share = self.count / self.num_rows
            by_list = self.by_list(ivf)
            of_random = by_list.sizes * share  # with a binomial variance
            excess = (by_list.counts - of_random) ** 2 - of_random * (1 - share)
            self._is_even = bool(excess.sum() <= _EVEN**2 * (of_random**2).sum())
        return self._is_even

    def contains(self, rows: Int64[ndarray, " *shape"]) -> Bool[ndarray, " *shape"]:
        """Which of these rows pass; never row -1."""
        is_row = rows >= 0
        bits = self.bitmap[np.where(is_row, rows, 0) >> 3] >> (rows & 7).astype(np.uint8)
        return np.asarray(is_row & (bits & 1).astype(bool))


class FilterBitmaps:
    """Evaluates filters on the columns of one file of items, and caches the rows of filters and conditions.

    Hidden rows pass no filter. Threads may share it.
    """

    def __init__(self, columns: Mapping[str, pa.Array], num_rows: int, max_bytes: int = _CACHE_BYTES) -> None:
        self._columns, self.num_rows, self._max_bytes = columns, num_rows, max_bytes
        self._cached, self._cached_visible = _Cache(max_bytes), _Cache(max_bytes)
        self._visible: Passing | None = None
        """The rows that are not hidden; None if none is."""

    def __len__(self) -> int:
        """The number of cached bitmaps."""
        return len(self._cached) + len(self._cached_visible)

    @property
    def num_visible(self) -> int:
        """The number of rows that are not hidden."""
        return self.num_rows if self._visible is None else self._visible.count

    def hide(self, rows: Int64[ndarray, " n"]) -> Self:
        """The same filters with these rows hidden, too; `self` stays as it is, and shares the cache."""
        if not len(rows):
            return self
        all_rows = self._of_conditions([])
        bitmap = (self._visible or all_rows).bitmap.copy()
        np.bitwise_and.at(bitmap, rows >> 3, ~(1 << (rows & 7)).astype(np.uint8))
        hiding = copy.copy(self)
        hiding._visible = all_rows.also(Passing(bitmap, self.num_rows))
        hiding._cached_visible = _Cache(self._max_bytes)
        return hiding

    def is_visible(self, row: int) -> bool:
        """Whether a row exists and is not hidden."""
        if not 0 <= row < self.num_rows:
            return False
        return self._visible is None or bool(self._visible.bitmap[row >> 3] >> (row & 7) & 1)

    @overload
    def passing(self, where: Filter) -> Passing: ...

    @overload
    def passing(self, where: None) -> Passing | None: ...

    def passing(self, where: Filter | None) -> Passing | None:
        """The visible rows that meet every condition of a valid filter; None for all rows, without a filter.

        Raises: as `meets`.
        """
        visible = self._visible
        if where is None:
            return visible
        conditions = [(name, *condition) for name, some in where.items() for condition in some.items()]
        if visible is None:
            return self._of_conditions(conditions)
        return self._cached_visible.get(conditions, lambda: self._of_conditions(conditions).also(visible))

    def _of_conditions(self, conditions: Sequence[Condition]) -> Passing:
        """The rows that meet all conditions, hidden or not."""
        if len(conditions) == 1:
            return self._of_condition(conditions[0])
        return self._cached.get(conditions, lambda: self._of_all(conditions))

    def _of_all(self, conditions: Sequence[Condition]) -> Passing:
        if not conditions:
            return Passing.of_mask(np.ones(self.num_rows, bool))
        bitmaps = (self._of_condition(condition).bitmap for condition in conditions)
        return Passing(functools.reduce(np.bitwise_and, bitmaps), self.num_rows)

    def _of_condition(self, condition: Condition) -> Passing:
        return self._cached.get([condition], lambda: Passing.of_mask(self._meets(*condition)))

    def _meets(self, name: str, operator: str, operand: Any) -> Bool[ndarray, " n"]:
        column = self._columns.get(name)
        return meets(pa.nulls(self.num_rows) if column is None else column, operator, operand)


class _Cache:
    """Bitmaps of conditions; the least recently used ones leave a full cache. Threads may share it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._cached: OrderedDict[bytes, Passing] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._cached)

    def get(self, conditions: Sequence[Condition], make: Callable[[], Passing]) -> Passing:
        """What the cache has for these conditions, or what `make` returns, which it keeps."""
        key = hashlib.sha256(repr(conditions).encode("utf-8", "backslashreplace")).digest()
        with self._lock:
            if key in self._cached:
                self._cached.move_to_end(key)
                return self._cached[key]
        passing = make()
        with self._lock:
            self._cached[key] = passing
            num_bytes = sum(one.nbytes for one in self._cached.values())
            while len(self._cached) > 1 and num_bytes > self._max_bytes:
                num_bytes -= self._cached.popitem(last=False)[1].nbytes
        return passing
