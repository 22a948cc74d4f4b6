"""Search in an opened IndexBundle: nearest neighbours of vectors, with filters."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys import artifacts, storage
from raysys.artifacts import IndexBundleManifest
from raysys.artifacts.embedding_set import UNIT_TOLERANCE, bad_rows, fault_of
from raysys.artifacts.intact import intact_file
from raysys.columns import content_hash
from raysys.errors import DamagedData, InputError, MissingError
from raysys.index.device import CPU, Device, IndexCopy
from raysys.index.filters import Filter, check_filter, require_known
from raysys.index.items import IndexedItem, Items, items_file
from raysys.index.kinds import GPU_KINDS
from raysys.index.neighbours import Neighbours, merged
from raysys.index.passing import FilterBitmaps
from raysys.index.shards import Shard, index_file, read_shard
from raysys.types import Attributes


class Neighbour(NamedTuple):
    """An item and the cosine of its vector with the query's vector."""

    item: IndexedItem
    score: float


class Searcher:
    """One version of one index; query vectors must belong to the embedding space `space_id`.

    Vectors and items are opened by memory map after one reading for their checksums. The files may be deleted
    while they are open, as a build does, but not altered. A row is counted over all FAISS files.
    `device` compares many queries with all stored vectors; if `is_on_device`, it also searches a copy of the
    index, without filters.
    Raises: MissingArtifact without an index, DamagedData if a file of it differs from its manifest,
    InputError for `is_on_device` with an index that a GPU cannot hold.
    """

    def __init__(self, uri: str, device: Device = CPU, *, is_on_device: bool = False) -> None:
        self.manifest = artifacts.open_artifact(uri, IndexBundleManifest)
        self.space_id = self.manifest.space_id
        if is_on_device:
            require_gpu_kind(uri, self.manifest)
        self._shards = [*_open_shards(uri, self.manifest, device, is_on_device)]
        self._first_rows = [*itertools.accumulate(map(len, self._shards), initial=0)]
        names = {name for shard in self._shards for name in shard.items.attributes}
        self._attributes: Attributes = dict.fromkeys(sorted(names))

    @property
    def version(self) -> str:
        """A short string that changes with the content of the index."""
        return f"{self.manifest.fingerprint[:12]}.{self.manifest.last_change}"

    def __len__(self) -> int:
        return self._first_rows[-1]

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self._find(item_id) is not None

    def search(
        self,
        vectors: Float32[ndarray, "q d"],
        k: int,
        *,
        where: Filter | None = None,
        exclude_rows: Sequence[int | None] | None = None,
        is_exact: bool = False,
    ) -> list[list[Neighbour]]:
        """The `k` nearest items of each vector, best first; fewer only where fewer exist or pass the filter.

        `vectors` have length 1 and belong to `space_id`; the caller checks the space. `where` keeps only
        items whose attributes meet its conditions. `exclude_rows[i]` is a row to leave out of the result of
        `vectors[i]`, for example the query item itself. `is_exact` compares the vectors with every stored one
        that passes, whatever the kind of index.
        Raises: InputError for an invalid `where`, and for vectors of another length or with a NaN.
        """
        excluded = exclude_rows or [None] * len(vectors)
        # One more than `k`, because the excluded row may be among the nearest.
        found = self.nearest(vectors, k + 1 if exclude_rows else k, where=where, is_exact=is_exact)
        return [
            self._neighbours(*result, k) for result in zip(found.scores, found.rows, excluded, strict=True)
        ]

    def nearest(
        self,
        vectors: Float32[ndarray, "q d"],
        k: int,
        *,
        where: Filter | None = None,
        is_exact: bool = False,
    ) -> Neighbours:
        """`search` without the items: rows and scores. Raises: as `search`."""
        if where is not None:
            require_known(check_filter(where), self._attributes)
        queries = self._checked(vectors)
        return merged([shard.search(queries, k, where, is_exact) for shard in self._shards], k)

    def row_of(self, item_id: str) -> int:
        """The row of an item. Raises: MissingError if the index does not contain it."""
        row = self._find(item_id)
        if row is None:
            raise MissingError(f"item '{item_id}' is not in the index of {len(self)} items; check the id")
        return row

    def item(self, row: int) -> IndexedItem:
        """The item of a row; its attributes are null where it has none."""
        shard, row = self._shard_of(row)
        item = shard.items.item(row)
        if len(item.attributes) < len(self._attributes):  # no item of this file has the others
            return item._replace(attributes={**self._attributes, **item.attributes})
        return item

    def vector(self, row: int) -> Float32[ndarray, " d"]:
        """The stored vector of a row, of length 1; what the index has kept of it, if the kind compresses."""
        return self._shard_of(row)[0].vectors.vector(row)

    def photo(self, row: int) -> bytes:
        """The encoded photo of a row, by a ranged read of its shard.

        Raises: DamagedData if the shard has something else at this place since the item was embedded.
        """
        shard, row = self._shard_of(row)
        item, place = shard.items.item(row), shard.items.photo_place(row)
        photo = storage.read_range(place.shard, place.offset, place.num_bytes)
        if content_hash(photo, item.title) != place.content_hash:
            raise DamagedData(
                f"{place.shard}: has changed at byte {place.offset}, where item '{item.item_id}' had its "
                "photo; run `raysys pack`, `raysys embed` and `raysys index` again"
            )
        return photo

    def _checked(self, vectors: ndarray) -> Float32[ndarray, "q d"]:
        """The queries as FAISS reads them."""
        if vectors.shape[1] != self.manifest.dimensions:
            raise InputError(
                f"vector: {self.manifest.dimensions} numbers are required, got {vectors.shape[1]}"
            )
        queries = np.ascontiguousarray(vectors, np.float32)
        # Of few queries this takes less time than numpy's comparison of all. A square is further from 1.
        if all(abs(float(np.vdot(query, query)) - 1.0) <= UNIT_TOLERANCE for query in queries):
            return queries
        bad = bad_rows(queries)
        if len(bad):
            raise InputError(
                f"vector: number {bad[0]} of {len(vectors)} {fault_of(vectors[bad[0]])}; "
                "finite vectors of length 1 are searched"
            )
        return queries

    def _find(self, item_id: str) -> int | None:
        for first, shard in zip(self._first_rows, self._shards, strict=False):
            row = shard.items.row_of(item_id)
            if row is not None:
                return first + row
        return None

    def _shard_of(self, row: int) -> tuple[_OpenShard, int]:
        """The shard of a row, and the row in it."""
        number = bisect.bisect_right(self._first_rows, row) - 1
        return self._shards[number], row - self._first_rows[number]

    def _neighbours(self, scores: ndarray, rows: ndarray, excluded: int | None, k: int) -> list[Neighbour]:
        pairs = zip(scores.tolist(), rows.tolist(), strict=True)
        kept = [(score, row) for score, row in pairs if row != excluded]
        return [Neighbour(self.item(row), score) for score, row in kept[:k]]


def require_gpu_kind(uri: str, manifest: IndexBundleManifest) -> None:
    """Raises: InputError for an index that a GPU cannot hold."""
    if manifest.index_kind not in GPU_KINDS:
        raise InputError(
            f"{uri}: a GPU searches an index of kind {' or '.join(GPU_KINDS)}, found {manifest.index_kind}; "
            "set index.kind and run `raysys index`, or set serve.search_on_gpu=false"
        )


@dataclass(frozen=True)
class _OpenShard:
    """A FAISS file with the items of its rows."""

    vectors: Shard
    items: Items
    bitmaps: FilterBitmaps

    def __len__(self) -> int:
        return len(self.items)

    def search(self, queries: ndarray, k: int, where: Filter | None, is_exact: bool) -> Neighbours:
        passing = None if where is None else self.bitmaps.passing(where)
        return self.vectors.search(queries, k, passing, is_exact=is_exact)


def _open_shards(
    uri: str, manifest: IndexBundleManifest, device: Device, is_on_device: bool
) -> Iterator[_OpenShard]:
    first_row = 0
    for number in range(sum(name.endswith(".faiss") for name in manifest.files)):
        with intact_file(uri, index_file(number), manifest) as path:
            index = read_shard(path)
        copy = IndexCopy.of(index, device) if is_on_device else None
        vectors = Shard(index, manifest.search, first_row, manifest.max_exact_rows, device, copy)
        with intact_file(uri, items_file(number), manifest) as path:
            items = Items(path)
        first_row += len(items)
        yield _OpenShard(vectors, items, FilterBitmaps(items.attributes, len(items)))
