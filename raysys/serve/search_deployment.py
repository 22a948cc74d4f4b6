"""The index as a Serve deployment. Its URI is `user_config`: a new index is swapped in without a restart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray
from ray import serve

from raysys.artifacts import require_same_space
from raysys.index.filters import check_filter
from raysys.index.search import IndexedItem, Neighbour
from raysys.index.search import Searcher as IndexSearcher


@dataclass(frozen=True)
class IndexFacts:
    """Which index is searched."""

    space_id: str
    index_version: str
    num_items: int


@dataclass(frozen=True)
class Shelf:
    """Neighbours, and the index they came from; `query` is the listed item they belong to, if any."""

    facts: IndexFacts
    neighbours: list[Neighbour]
    query: IndexedItem | None = None


@serve.deployment(name="Searcher")
class Searcher:
    """Searches one index version at a time; every answer names it."""

    def __init__(self) -> None:
        self._searcher: IndexSearcher | None = None

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load the index at `index_uri`, then answer from it."""
        self._searcher = IndexSearcher(user_config["index_uri"])

    async def facts(self) -> IndexFacts:
        """Which index is searched."""
        return _facts(self._index)

    async def similar(self, item_id: str, k: int, where: Any) -> Shelf:
        """Neighbours of a listed item, by its stored vector. Raises: MissingError, InputError."""
        index = self._index
        row = index.row_of(item_id)
        kept = None if where is None else check_filter(where)
        found = await asyncio.to_thread(
            index.neighbours, index.vector(row)[None], k, where=kept, without_rows={0: row}
        )
        return Shelf(_facts(index), found[0], index.item(row))

    async def nearest(self, vector: ndarray, space_id: str, k: int, where: Any) -> Shelf:
        """Neighbours of a vector of space `space_id`. Raises: SpaceMismatch, InputError."""
        index = self._index
        require_same_space("vector", space_id, "the index", index.space_id)
        kept = None if where is None else check_filter(where)
        found = await asyncio.to_thread(index.neighbours, vector[None], k, where=kept)
        return Shelf(_facts(index), found[0])

    async def sample(self, limit: int, seed: int) -> list[IndexedItem]:
        """Some listed items, the same for the same seed."""
        index = self._index
        rows = np.random.default_rng(seed).permutation(len(index))[:limit]
        return [index.item(int(row)) for row in rows]

    async def photo(self, item_id: str) -> bytes:
        """A listed item's photo, from its shard. Raises: MissingError."""
        index = self._index
        return await asyncio.to_thread(index.photo, index.row_of(item_id))

    @property
    def _index(self) -> IndexSearcher:
        assert self._searcher is not None, "Serve calls reconfigure before the first request"
        return self._searcher


def _facts(index: IndexSearcher) -> IndexFacts:
    return IndexFacts(index.space_id, index.version, len(index))
