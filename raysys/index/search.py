"""Search in an opened IndexBundle: nearest neighbours of vectors, with filters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32
from numpy import ndarray

from raysys import artifacts, storage
from raysys.artifacts import IndexBundleManifest
from raysys.artifacts.embedding_set import bad_rows, fault_of
from raysys.artifacts.intact import intact_file, read_table
from raysys.columns import (
    ATTRIBUTES,
    CONTENT_HASH,
    IMAGE_BYTES,
    IMAGE_OFFSET,
    ITEM_ID,
    SHARD,
    TITLE,
    Attributes,
    content_hash,
)
from raysys.errors import DamagedData, InputError, MissingError
from raysys.index.filters import Filter, check_filter, matching_rows
from raysys.index.shards import Shards, read_shard

ITEMS_FILE = "items.parquet"


@dataclass(frozen=True)
class IndexedItem:
    """An item of the index."""

    item_id: str
    title: str
    attributes: Attributes


@dataclass(frozen=True)
class Neighbour:
    """An item and the cosine of its vector with the query's vector."""

    item: IndexedItem
    score: float


class Searcher:
    """One version of one index; query vectors must belong to the embedding space `space_id`.

    Raises: MissingArtifact without an index, DamagedData if a file of it differs from its manifest.
    """

    def __init__(self, uri: str) -> None:
        self.manifest = artifacts.open_artifact(uri, IndexBundleManifest)
        self.space_id = self.manifest.space_id
        self._shards = Shards([*_read_shards(uri, self.manifest)], self.manifest.search)
        self._items = read_table(uri, ITEMS_FILE, self.manifest)
        self._item_ids: list[str] = self._items.column(ITEM_ID).to_pylist()
        self._attributes: list[Attributes] = [
            json.loads(text) for text in self._items.column(ATTRIBUTES).to_pylist()
        ]
        self._item_id_to_row = {item_id: row for row, item_id in enumerate(self._item_ids)}

    @property
    def version(self) -> str:
        """A short string that changes with the content of the index."""
        return f"{self.manifest.fingerprint[:12]}.{self.manifest.last_change}"

    def __len__(self) -> int:
        return len(self._item_ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._item_id_to_row

    def search(
        self,
        vectors: Float32[ndarray, "q d"],
        k: int,
        *,
        where: Filter | None = None,
        exclude_rows: Sequence[int | None] | None = None,
        is_exact: bool = False,
    ) -> list[list[Neighbour]]:
        """The `k` nearest items of each vector, best first; fewer where fewer exist or match.

        `vectors` have length 1 and belong to `space_id`; the caller checks the space. `where` keeps only
        items whose attributes meet its conditions; the search among them is exact. `exclude_rows[i]` is a row
        to leave out of the result of `vectors[i]`, for example the query item itself. `is_exact` compares the
        vectors with every stored one, whatever the kind of index.
        Raises: InputError for an invalid `where`, and for vectors of another length or with a NaN.
        """
        conditions = None if where is None else check_filter(where)
        if vectors.shape[1] != self.manifest.dimensions:
            raise InputError(
                f"vector: {self.manifest.dimensions} numbers are required, got {vectors.shape[1]}"
            )
        bad = bad_rows(np.asarray(vectors, np.float32))
        if len(bad):
            raise InputError(
                f"vector: number {bad[0]} of {len(vectors)} {fault_of(vectors[bad[0]])}; "
                "finite vectors of length 1 are searched"
            )
        excluded = exclude_rows or [None] * len(vectors)
        # One more than `k`, because the excluded row may be among the nearest.
        scores, rows = self._search(vectors, k + 1 if exclude_rows else k, conditions, is_exact)
        return [self._neighbours(*result, k) for result in zip(scores, rows, excluded, strict=True)]

    def row_of(self, item_id: str) -> int:
        """The row of an item. Raises: MissingError if the index does not contain it."""
        if item_id not in self._item_id_to_row:
            raise MissingError(f"item '{item_id}' is not in the index of {len(self)} items; check the id")
        return self._item_id_to_row[item_id]

    def item(self, row: int) -> IndexedItem:
        """The item of a row."""
        title = self._items.column(TITLE)[row].as_py()
        return IndexedItem(self._item_ids[row], title, self._attributes[row])

    def vector(self, row: int) -> Float32[ndarray, " d"]:
        """The stored vector of a row."""
        return np.asarray(self._shards.vectors(np.array([row]))[0])

    def photo(self, row: int) -> bytes:
        """The encoded photo of a row, by a ranged read of its shard.

        Raises: DamagedData if the shard has something else at this place since the item was embedded.
        """
        shard, offset, size, title, expected = (
            self._items.column(name)[row].as_py()
            for name in (SHARD, IMAGE_OFFSET, IMAGE_BYTES, TITLE, CONTENT_HASH)
        )
        photo = storage.read_range(shard, offset, size)
        if content_hash(photo, title) != expected:
            raise DamagedData(
                f"{shard}: has changed at byte {offset}, where item '{self._item_ids[row]}' had its photo; "
                "run `raysys pack`, `raysys embed` and `raysys index` again"
            )
        return photo

    def _search(
        self, vectors: ndarray, k: int, where: Filter | None, is_exact: bool
    ) -> tuple[ndarray, ndarray]:
        queries = np.ascontiguousarray(vectors, np.float32)
        if where is not None:
            # Exact search over the matching rows: a filter that keeps few items ruins the recall of a graph.
            found = self._shards.search_among(queries, k, matching_rows(self._attributes, where))
        elif is_exact:
            found = self._shards.search_exactly(queries, k)
        else:
            found = self._shards.search(queries, k)
        return found.scores, found.rows

    def _neighbours(self, scores: ndarray, rows: ndarray, excluded: int | None, k: int) -> list[Neighbour]:
        # A short result is padded with row -1.
        pairs = [pair for pair in zip(scores, rows, strict=True) if pair[1] >= 0 and pair[1] != excluded]
        return [Neighbour(self.item(int(row)), float(score)) for score, row in pairs[:k]]


def shard_name(number: int) -> str:
    """The name of a FAISS file of an index."""
    return f"shard-{number:05d}.faiss"


def _read_shards(uri: str, manifest: IndexBundleManifest) -> Iterator[Any]:
    for name in sorted(name for name in manifest.files if name.endswith(".faiss")):
        with intact_file(uri, name, manifest) as path:
            yield read_shard(path)


def items_table(embeddings: pa.Table) -> pa.Table:
    """The row-to-item table of an index: item columns of the EmbeddingSet without the vectors."""
    columns: Any = [ITEM_ID, TITLE, ATTRIBUTES, SHARD, IMAGE_OFFSET, IMAGE_BYTES, CONTENT_HASH]
    return embeddings.select(columns)
