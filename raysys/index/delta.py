"""Items that were put after the index was built: a few, compared exactly with every query.

A `Delta` is immutable. Each batch of changes makes the next one, which shares the vectors in memory, so a
search that has begun with the one before is not disturbed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from raysys import storage
from raysys.artifacts.embedding_set import bad_rows, fault_of
from raysys.columns import content_hash
from raysys.errors import DamagedData
from raysys.index.filters import Filter, values_meet
from raysys.index.items import IndexedItem, no_photo
from raysys.index.neighbours import Neighbours, largest
from raysys.index.passing import FilterBitmaps
from raysys.index.value_types import ValueType, held_together, type_of
from raysys.store.changes import Change, Upsert

_BLOCK_SCORES = 1 << 22  # cosines of a block of queries in memory at a time: 16 MB
_MIN_CAPACITY = 64


@dataclass(frozen=True)
class Delta:
    """The items that were put since the index was built, with their vectors of one embedding space.

    Rows count from 0 in the order of the changes, and no row is used again. Replaced and deleted items leave
    memory when they are more than half of the stored ones.
    """

    space_id: str
    first_row: int
    """The number of rows of the index before these."""
    base_attributes: frozenset[str]
    """The attributes of the index before these rows."""
    stored: tuple[Upsert, ...]
    """Without their vectors. Some are replaced or deleted."""
    vectors: VectorBuffer
    is_live: Bool[ndarray, " n"]
    """Which of the stored items are neither replaced nor deleted."""
    numbers: Int64[ndarray, " n"]
    """The row of each stored item, ascending."""
    next_row: int
    places: Mapping[str, int]
    """Item id to its place among the stored items."""
    without_vector: frozenset[str]
    """Ids of items that were put without a vector of the space: no search finds them."""
    type_counts: Counter[tuple[str, ValueType]]
    """How many items have a value of a type in an attribute."""
    bitmaps: FilterBitmaps

    @classmethod
    def empty(cls, space_id: str, dimensions: int, first_row: int, base_attributes: frozenset[str]) -> Delta:
        """No items yet."""
        is_live = np.empty(0, bool)
        return cls(
            space_id=space_id,
            first_row=first_row,
            base_attributes=base_attributes,
            stored=(),
            vectors=VectorBuffer(dimensions),
            is_live=is_live,
            numbers=np.empty(0, np.int64),
            next_row=0,
            places={},
            without_vector=frozenset(),
            type_counts=Counter(),
            bitmaps=_bitmaps((), is_live, base_attributes),
        )

    @property
    def num_items(self) -> int:
        """The number of items that can be found."""
        return len(self.places)

    def applied(self, changes: Mapping[str, Change]) -> Delta:
        """The items after the last change of each of these ids.

        Raises: DamagedData for a vector that does not fit the index.
        """
        upserts = [change for change in changes.values() if isinstance(change, Upsert)]
        found = [upsert for upsert in upserts if self.space_id in upsert.vectors]
        places, num = dict(self.places), len(self.stored)
        stale = [places.pop(item_id) for item_id in changes if item_id in places]
        places.update({upsert.item_id: num + number for number, upsert in enumerate(found)})
        waiting = {upsert.item_id for upsert in upserts} - places.keys()
        is_live = np.concatenate([self.is_live, np.ones(len(found), bool)])
        is_live[stale] = False
        type_counts = self.type_counts.copy()
        type_counts.subtract(_types(self.stored[place] for place in stale))
        type_counts.update(_types(found))
        next_row = self.next_row + len(found)
        stored = (*self.stored, *(replace(upsert, vectors={}) for upsert in found))
        after = replace(
            self,
            stored=stored,
            vectors=self.vectors.with_more(num, self._vectors_of(found)),
            is_live=is_live,
            numbers=np.concatenate([self.numbers, np.arange(self.next_row, next_row)]),
            next_row=next_row,
            places=places,
            without_vector=self.without_vector.difference(changes).union(waiting),
            type_counts=+type_counts,
            bitmaps=_bitmaps(stored, is_live, self.base_attributes),
        )
        return after._compacted() if 2 * len(places) < len(stored) else after

    def search(
        self, queries: Float32[ndarray, "q d"], k: int, where: Filter | None, is_exact: bool
    ) -> Neighbours:
        """The `k` nearest items that pass, always exact; equally near ones in the order of their rows."""
        passing = self.bitmaps.passing(where)
        places = np.arange(len(self.stored)) if passing is None else passing.rows()
        found = Neighbours.none(len(queries), min(k, len(places)))
        if not found.rows.size:
            return found
        vectors = self.vectors.array[: len(self.stored)].T
        num = max(1, _BLOCK_SCORES // len(self.stored))
        for start in range(0, len(queries), num):
            block = queries[start : start + num] @ vectors
            for number, scores in enumerate(block if passing is None else block[:, places], start):
                best = largest(scores, found.rows.shape[1])
                found.scores[number], found.rows[number] = scores[best], self.numbers[places[best]]
        return Neighbours(found.scores, found.rows + self.first_row)

    def row_of(self, item_id: str) -> int | None:
        """The row of an item; None if no search finds it here."""
        place = self.places.get(item_id)
        return None if place is None else int(self.numbers[place])

    def rows(self) -> Int64[ndarray, " n"]:
        """The rows of all items, ascending."""
        return np.asarray(self.numbers[self.is_live])

    def has(self, row: int) -> bool:
        """Whether a row is that of an item."""
        place = self._place(row)
        return place < len(self.numbers) and self.numbers[place] == row and bool(self.is_live[place])

    def item(self, row: int) -> IndexedItem:
        """The item of a row, with the attributes that it was put with."""
        stored = self.stored[self._place(row)]
        return IndexedItem(stored.item_id, stored.title, stored.attributes, stored.group)

    def held_types(self, name: str, base: Sequence[ValueType], *, besides: str) -> list[ValueType]:
        """The types of an attribute that one column holds: those of `base`, then in the order of the items.

        The item `besides` does not count.
        """
        own = self.places.get(besides)
        own_type = None if own is None else type_of(self.stored[own].attributes.get(name))
        types = [
            each
            for each in ValueType
            if self.type_counts[name, each] > (each is own_type) and all(each.fits(other) for other in base)
        ]
        if held_together(types) == types:
            return held_together([*base, *types])
        places = (int(place) for place in np.flatnonzero(self.is_live) if place != own)
        found = (type_of(self.stored[place].attributes.get(name)) for place in places)
        return held_together([*base, *(each for each in found if each is not None)])

    def vector(self, row: int) -> Float32[ndarray, " d"]:
        """The vector of a row, of length 1."""
        return np.asarray(self.vectors.array[self._place(row)])

    def photo(self, row: int) -> bytes:
        """The encoded photo of a row.

        Raises: MissingError for an item without one, DamagedData if the file has another one.
        """
        stored = self.stored[self._place(row)]
        if stored.photo is None:
            raise no_photo(stored.item_id)
        photo = storage.read_bytes(stored.photo.uri)
        if content_hash(photo, stored.title) != stored.content_hash:
            raise DamagedData(
                f"{stored.photo.uri}: is not the photo with which item '{stored.item_id}' was put; "
                "put the item again"
            )
        return photo

    def _place(self, row: int) -> int:
        return int(np.searchsorted(self.numbers, row))

    def _vectors_of(self, upserts: Sequence[Upsert]) -> Float32[ndarray, "n d"]:
        dimensions = self.vectors.array.shape[1]
        vectors = np.empty((len(upserts), dimensions), np.float32)
        for number, upsert in enumerate(upserts):
            vector = upsert.vectors[self.space_id]
            if vector.shape != (dimensions,):
                raise _unusable(upsert, f"has {vector.size} numbers instead of {dimensions}")
            vectors[number] = vector
        for number in bad_rows(vectors):
            raise _unusable(upserts[number], fault_of(vectors[number]))
        return vectors

    def _compacted(self) -> Delta:
        """The same items; what is replaced or deleted leaves memory."""
        kept = np.flatnonzero(self.is_live)
        stored = tuple(self.stored[place] for place in kept)
        is_live = np.ones(len(kept), bool)
        return replace(
            self,
            stored=stored,
            vectors=VectorBuffer(self.vectors.array.shape[1]).with_more(0, self.vectors.array[kept]),
            is_live=is_live,
            numbers=self.numbers[kept],
            places={upsert.item_id: place for place, upsert in enumerate(stored)},
            bitmaps=_bitmaps(stored, is_live, self.base_attributes),
        )


class VectorBuffer:
    """Memory for vectors that grows by doubling. A row that is written never changes."""

    def __init__(self, dimensions: int, capacity: int = _MIN_CAPACITY) -> None:
        self.array = np.empty((capacity, dimensions), np.float32)
        self._num_written = 0

    def with_more(self, num: int, vectors: Float32[ndarray, "n d"]) -> VectorBuffer:
        """A buffer with the first `num` vectors of this one, then these; the same buffer if it has space."""
        buffer, end = self, num + len(vectors)
        if num != self._num_written or end > len(self.array):
            buffer = VectorBuffer(self.array.shape[1], max(_MIN_CAPACITY, 2 * end))
            buffer.array[:num] = self.array[:num]
        buffer.array[num:end] = vectors
        buffer._num_written = end
        return buffer


class _ValueBitmaps(FilterBitmaps):
    """Evaluates filters on the values of items, whose types may differ."""

    def __init__(
        self, stored: Sequence[Upsert], is_live: Bool[ndarray, " n"], base_attributes: frozenset[str]
    ) -> None:
        super().__init__({}, len(stored))
        self._stored, self._is_live, self._base_attributes = stored, is_live, base_attributes

    def _meets(self, name: str, operator: str, operand: Any) -> Bool[ndarray, " n"]:
        items = zip(self._stored, self._is_live.tolist(), strict=True)
        values = [upsert.attributes.get(name) if is_live else None for upsert, is_live in items]
        if operator in ("gte", "lte") and name in self._base_attributes:
            # The index refuses an order of texts. Here a text among its numbers must not make a search fail.
            values = [None if isinstance(value, str) else value for value in values]
        return values_meet(values, operator, operand)


def _bitmaps(
    stored: Sequence[Upsert], is_live: Bool[ndarray, " n"], base_attributes: frozenset[str]
) -> FilterBitmaps:
    return _ValueBitmaps(stored, is_live, base_attributes).hide(np.flatnonzero(~is_live))


def _types(upserts: Iterable[Upsert]) -> Iterator[tuple[str, ValueType]]:
    """Each attribute of each item, and the type of its value."""
    for upsert in upserts:
        for name, value in upsert.attributes.items():
            if (found := type_of(value)) is not None:
                yield name, found


def _unusable(upsert: Upsert, fault: str) -> DamagedData:
    return DamagedData(
        f"change of item '{upsert.item_id}': its vector {fault}; the index takes finite vectors of length 1; "
        "put the item again"
    )
