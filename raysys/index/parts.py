"""The parts of an opened index, which count their rows from 0: each of its FAISS files, and the `Delta`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys import storage
from raysys.artifacts import IndexBundleManifest
from raysys.artifacts.intact import intact_file
from raysys.columns import content_hash
from raysys.errors import DamagedData
from raysys.index.device import Device, IndexCopy
from raysys.index.filters import Filter
from raysys.index.items import IndexedItem, Items, items_file, no_photo
from raysys.index.neighbours import Neighbours
from raysys.index.partition import Partition
from raysys.index.passing import FilterBitmaps
from raysys.index.shards import Shard, index_file, read_shard


class Part(Protocol):
    """Some rows of an index. Those of deleted and replaced items are never returned, but may be read."""

    @property
    def num_items(self) -> int:
        """The number of items that can be found."""

    def search(
        self, queries: Float32[ndarray, "q d"], k: int, where: Filter | None, is_exact: bool
    ) -> Neighbours:
        """The `k` nearest items that pass, fewer if fewer do; their rows are those of the index."""

    def row_of(self, item_id: str) -> int | None:
        """The row of an item; None if no search finds it here."""

    def rows(self) -> Int64[ndarray, " n"]:
        """The rows of all items, ascending."""

    def has(self, row: int) -> bool:
        """Whether a row is that of an item."""

    def item(self, row: int) -> IndexedItem:
        """The item of a row, with attributes that any item of the part has."""

    def vector(self, row: int) -> Float32[ndarray, " d"]:
        """The vector of a row, of length 1."""

    def photo(self, row: int) -> bytes:
        """The encoded photo of a row."""


@dataclass(frozen=True)
class BasePart:
    """A FAISS file with the items of its rows; `bitmaps` hide those that were replaced or deleted."""

    vectors: Shard
    items: Items
    bitmaps: FilterBitmaps

    @property
    def num_items(self) -> int:
        return self.bitmaps.num_visible

    def search(
        self, queries: Float32[ndarray, "q d"], k: int, where: Filter | None, is_exact: bool
    ) -> Neighbours:
        return self.vectors.search(queries, k, self.bitmaps.passing(where), is_exact=is_exact)

    def row_of(self, item_id: str) -> int | None:
        row = self.items.row_of(item_id)
        return row if row is not None and self.bitmaps.is_visible(row) else None

    def rows(self) -> Int64[ndarray, " n"]:
        passing = self.bitmaps.passing(None)
        return np.arange(len(self.items)) if passing is None else passing.rows()

    def has(self, row: int) -> bool:
        return self.bitmaps.is_visible(row)

    def item(self, row: int) -> IndexedItem:
        return self.items.item(row)

    def vector(self, row: int) -> Float32[ndarray, " d"]:
        """What the index has kept of it, if the kind compresses."""
        return self.vectors.vector(self.vectors.first_row + row)

    def photo(self, row: int) -> bytes:
        """By a ranged read of its shard.

        Raises: DamagedData if the shard has something else at this place since the item was embedded,
        MissingError for an item that was put without a photo.
        """
        item, place = self.items.item(row), self.items.photo_place(row)
        if not place.num_bytes:
            raise no_photo(item.item_id)
        photo = storage.read_range(place.shard, place.offset, place.num_bytes)
        if content_hash(photo, item.title) != place.content_hash:
            raise DamagedData(
                f"{place.shard}: has changed at byte {place.offset}, where item '{item.item_id}' had its "
                "photo; run `raysys pack`, `raysys embed` and `raysys index` again"
            )
        return photo

    def with_effort(self, share: float) -> BasePart:
        """The same part, as `Shard.with_effort`."""
        return replace(self, vectors=self.vectors.with_effort(share))

    def without(self, item_ids: Iterable[str]) -> BasePart:
        """The same part without these items, if it has them."""
        rows = [row for row in map(self.row_of, item_ids) if row is not None]
        return replace(self, bitmaps=self.bitmaps.hide(np.array(rows, np.int64)))


def num_files(manifest: IndexBundleManifest) -> int:
    """The number of FAISS files of an IndexBundle."""
    return sum(name.endswith(".faiss") for name in manifest.files)


def open_parts(
    uri: str, manifest: IndexBundleManifest, device: Device, is_on_device: bool, partition: Partition
) -> Iterator[BasePart]:
    """The FAISS files of a partition of an IndexBundle, in order.

    Raises: DamagedData for a file that differs from the manifest; as `Partition.files`.
    """
    first_row = 0
    for number in partition.files(uri, num_files(manifest)):
        with intact_file(uri, index_file(number), manifest) as path:
            index = read_shard(path)
        copy = IndexCopy.of(index, device) if is_on_device else None
        vectors = Shard(index, manifest.search, first_row, manifest.max_exact_rows, device, copy)
        with intact_file(uri, items_file(number), manifest) as path:
            items = Items(path)
        first_row += len(items)
        yield BasePart(vectors, items, FilterBitmaps(items.attributes, len(items)))
