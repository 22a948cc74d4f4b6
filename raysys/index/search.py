"""An opened IndexBundle: neighbours of a vector or of a listed item, with filters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32
from numpy import ndarray

from raysys import artifacts, storage
from raysys.artifacts import IndexBundleManifest
from raysys.columns import ATTRIBUTES, IMAGE_BYTES, IMAGE_OFFSET, ITEM_ID, SHARD, TITLE, Attributes
from raysys.errors import InputError, MissingError
from raysys.index.exact import exact_search
from raysys.index.filters import Filter, matching_rows

INDEX_FILE = "shard-00000.faiss"
ITEMS_FILE = "items.parquet"


@dataclass(frozen=True)
class IndexedItem:
    """An item of the index, as a shelf shows it."""

    item_id: str
    title: str
    attributes: Attributes


@dataclass(frozen=True)
class Neighbour:
    """An item and the cosine of its vector with the query's."""

    item: IndexedItem
    score: float


class Searcher:
    """Searches one version of one index; `space_id` names the space that query vectors must be of."""

    def __init__(self, uri: str) -> None:
        self.manifest = artifacts.open_artifact(uri, IndexBundleManifest)
        self.space_id = self.manifest.space_id
        with storage.readable_folder(uri) as folder:
            self._index = faiss.read_index(str(folder / INDEX_FILE))
            self._items = pq.read_table(folder / ITEMS_FILE)
        self._item_ids: list[str] = self._items.column(ITEM_ID).to_pylist()
        self._attributes: list[Attributes] = [
            json.loads(text) for text in self._items.column(ATTRIBUTES).to_pylist()
        ]
        self._item_id_to_row = {item_id: row for row, item_id in enumerate(self._item_ids)}

    @property
    def version(self) -> str:
        """Changes whenever the content of the index does."""
        return f"{self.manifest.fingerprint[:12]}.{self.manifest.last_change}"

    def __len__(self) -> int:
        return len(self._item_ids)

    def row_of(self, item_id: str) -> int:
        """The row of a listed item. Raises: MissingError."""
        if item_id not in self._item_id_to_row:
            raise MissingError(f"item '{item_id}' is not in the index of {len(self)} items; check the id")
        return self._item_id_to_row[item_id]

    def item(self, row: int) -> IndexedItem:
        """What is known of a row."""
        title = self._items.column(TITLE)[row].as_py()
        return IndexedItem(self._item_ids[row], title, self._attributes[row])

    def vector(self, row: int) -> Float32[ndarray, " d"]:
        """The stored vector of a row."""
        return np.asarray(self._index.reconstruct(row), np.float32)

    def photo(self, row: int) -> bytes:
        """The photo of a row, by a ranged read of its shard."""
        shard, offset, size = (
            self._items.column(name)[row].as_py() for name in (SHARD, IMAGE_OFFSET, IMAGE_BYTES)
        )
        return storage.read_range(shard, offset, size)

    def neighbours(
        self,
        queries: Float32[ndarray, "q d"],
        k: int,
        *,
        where: Filter | None = None,
        without_rows: Mapping[int, int] | None = None,
    ) -> list[list[Neighbour]]:
        """The `k` nearest of each query, best first; `without_rows[q]` is left out of query q's.

        Raises: InputError for vectors of another length or an unknown attribute in `where`.
        """
        if queries.shape[1] != self.manifest.dimensions:
            raise InputError(f"vector: {self.manifest.dimensions} numbers are needed, got {queries.shape[1]}")
        left_out = without_rows or {}
        scores, rows = self._search(queries, k + 1 if left_out else k, where)
        return [
            self._list(scores[number], rows[number], k, left_out.get(number))
            for number in range(len(queries))
        ]

    def _search(self, queries: ndarray, k: int, where: Filter | None) -> tuple[ndarray, ndarray]:
        if where is None:
            found: tuple[ndarray, ndarray] = self._index.search(
                np.ascontiguousarray(queries, np.float32), min(k, len(self))
            )
            return found
        # Exactly, over the rows that fit: a filter on a small subset ruins an approximate search.
        kept = matching_rows(self._attributes, where)
        vectors = self._index.reconstruct_batch(kept)
        scores, places = exact_search(queries, vectors, k)
        return scores, kept[places]

    def _list(self, scores: ndarray, rows: ndarray, k: int, left_out: int | None) -> list[Neighbour]:
        kept = [(score, row) for score, row in zip(scores, rows, strict=True) if row >= 0 and row != left_out]
        return [Neighbour(self.item(int(row)), float(score)) for score, row in kept[:k]]


def items_table(embeddings: pa.Table) -> pa.Table:
    """The row-to-item map of an index: all columns of the EmbeddingSet but the vectors."""
    columns: Any = [ITEM_ID, TITLE, ATTRIBUTES, SHARD, IMAGE_OFFSET, IMAGE_BYTES]
    return embeddings.select(columns)
