"""The index as a Serve deployment; its URI is the `user_config`, which Serve can change without a restart."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy import ndarray
from ray import serve

from raysys.artifacts import require_same_space
from raysys.index.device import CPU, Gpu, device_of
from raysys.index.items import IndexedItem
from raysys.index.search import Neighbour, Searcher
from raysys.index.shelf import shelf
from raysys.serve.deadline import in_thread
from raysys.serve.follower import ChangeFollower, FollowerConfig
from raysys.serve.live_recall import LiveRecall
from raysys.serve.opening_item import opening_row


@dataclass(frozen=True)
class IndexInfo:
    """The index that a replica has loaded."""

    space_id: str
    index_version: str
    num_items: int
    dimensions: int
    last_change: int
    """Sequence number of the last change that was applied."""


@dataclass(frozen=True)
class SearchResult:
    """Neighbours, best first, and the index that returned them; `query` is the query item, if any."""

    index: IndexInfo
    neighbours: list[Neighbour]
    query: IndexedItem | None = None


class ShelfOptions(NamedTuple):
    """What may be on a shelf: parameters of `shelf`."""

    where: Any = None
    max_per: Any = None
    include_group: bool = False


@serve.deployment(name="Searcher")
class SearchDeployment:
    """Searches one version of one index; each result contains the version."""

    def __init__(self, is_on_gpu: bool = False, recall_sample: float = 0.0) -> None:
        self._device = device_of("gpu", instead="serve.search_on_gpu=false") if is_on_gpu else CPU
        self._loaded: Searcher | None = None
        self._follower: ChangeFollower | None = None
        self._live_recall = LiveRecall(recall_sample, random.Random())
        self._opening_lock = asyncio.Lock()
        self._opening: tuple[Searcher, str] | None = None
        """An index and the id of its opening item."""

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load the index at `index_uri` with all changes; later requests use it.

        `changes` says where its changes are (`FollowerConfig`), or is None.
        """
        is_on_gpu = isinstance(self._device, Gpu)
        searcher = Searcher(user_config["index_uri"], self._device, is_on_device=is_on_gpu)
        _warm_up(searcher)
        changes: FollowerConfig | None = user_config["changes"]
        follower = ChangeFollower(searcher, changes) if changes is not None else None
        self.close()
        self._loaded, self._follower = searcher, follower

    def close(self) -> None:
        """Apply no further changes."""
        if self._follower is not None:
            self._follower.stop()
        self._follower = None

    async def info(self) -> IndexInfo:
        """The loaded index."""
        return _info(self._searcher)

    async def similar(self, item_id: str, k: int, options: ShelfOptions, deadline: float) -> SearchResult:
        """Neighbours of an item, by its stored vector. Raises: MissingError, InputError, DeadlineExceeded."""
        searcher = self._searcher
        row = searcher.row_of(item_id)
        vector = searcher.vector(row)
        neighbours = await in_thread(deadline, shelf, searcher, vector, k, query_row=row, **options._asdict())
        self._live_recall.sample(searcher, vector, options.where)
        return SearchResult(_info(searcher), neighbours, searcher.item(row))

    async def nearest(
        self, vector: ndarray, space_id: str, k: int, options: ShelfOptions, deadline: float
    ) -> SearchResult:
        """Neighbours of a vector of the space `space_id`.

        Raises: SpaceMismatch, InputError, DeadlineExceeded.
        """
        searcher = self._searcher
        require_same_space("vector", space_id, "the index", searcher.space_id)
        neighbours = await in_thread(deadline, shelf, searcher, vector, k, **options._asdict())
        self._live_recall.sample(searcher, vector, options.where)
        return SearchResult(_info(searcher), neighbours)

    async def sample(self, limit: int, seed: int) -> list[IndexedItem]:
        """Random items; equal seeds give equal items."""
        searcher = self._searcher
        return [searcher.item(int(row)) for row in searcher.random_rows(limit, seed)]

    async def opening_item(self) -> IndexedItem | None:
        """The item with which the page opens; computed once for each index, and again when it is deleted."""
        async with self._opening_lock:  # many pages may open at once
            searcher, loaded = self._searcher, self._loaded
            if self._opening is None or self._opening[0] is not loaded or self._opening[1] not in searcher:
                row = await asyncio.to_thread(opening_row, searcher)
                if row is None or loaded is None:
                    return None
                self._opening = loaded, searcher.item(row).item_id
            return searcher.item(searcher.row_of(self._opening[1]))

    async def photo(self, item_id: str, deadline: float) -> bytes:
        """The photo of an item, read from its shard. Raises: MissingError, DeadlineExceeded."""
        searcher = self._searcher
        return await in_thread(deadline, searcher.photo, searcher.row_of(item_id))

    @property
    def _searcher(self) -> Searcher:
        """The index as it is now: changes that arrive during a request do not reach it."""
        assert self._loaded is not None, "Serve calls reconfigure before the first request"
        return self._loaded.snapshot()


def _warm_up(searcher: Searcher) -> None:
    """Search once, so that no request waits for what the first search reads and allocates."""
    for row in searcher.random_rows(1, seed=0):
        shelf(searcher, searcher.vector(int(row)), 1)


def _info(searcher: Searcher) -> IndexInfo:
    return IndexInfo(
        searcher.space_id,
        searcher.version,
        len(searcher),
        searcher.manifest.dimensions,
        searcher.last_change,
    )
