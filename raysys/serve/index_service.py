"""The opened index, searched in this process; another one is loaded beside it for a switch."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from jaxtyping import Float32
from numpy import ndarray

from raysys.artifacts import require_same_space
from raysys.artifacts.served import ServedPair
from raysys.index.attribute_summary import AttributeSummary
from raysys.index.device import CPU, Gpu, device_of
from raysys.index.items import IndexedItem
from raysys.index.partition import COMPLETE, Partition
from raysys.index.search import Neighbour, Searcher
from raysys.index.shelf import ShelfOptions, Wanted, shelf
from raysys.serve import metrics
from raysys.serve.bounded_threads import BoundedThreads
from raysys.serve.checks import GoldenItem, check_index, golden_items
from raysys.serve.deadline import require_time
from raysys.serve.follower import ChangeFollower, FollowerConfig
from raysys.serve.generations import Generations
from raysys.serve.live_recall import LiveRecall
from raysys.serve.opening_item import opening_row
from raysys.serve.search_time import SearchTime
from raysys.types import Attributes

T = TypeVar("T")
_WARM_UP_SEARCHES, _WARM_UP_K = 10, 10
_SUMMARY_AGE_S = 60.0  # to summarise ten million items takes seconds


@dataclass(frozen=True)
class IndexInfo:
    """The index that a process has loaded."""

    space_id: str
    index_version: str
    num_items: int
    num_files: int
    dimensions: int
    last_change: int
    """Sequence number of the last change that was applied."""


@dataclass(frozen=True)
class SearchResult:
    """Neighbours, best first, and the index that returned them; `query` is the query item, if any."""

    index: IndexInfo
    neighbours: list[Neighbour]
    query: IndexedItem | None = None
    is_degraded: bool = False
    """Whether a search had less effort than usual, because the process had too many."""


class StoredItem(NamedTuple):
    """An item of a partition, with its stored vector."""

    item: IndexedItem
    vector: Float32[ndarray, " d"]


class FoundInPart(NamedTuple):
    """What a search finds in a partition, best first; another one may know more attributes."""

    info: IndexInfo
    attribute_names: list[str]
    neighbours: list[Neighbour]
    is_degraded: bool = False


class _Loaded:
    """An index that follows its changes."""

    def __init__(self, searcher: Searcher, changes: FollowerConfig | None) -> None:
        self.searcher = searcher
        self.follower = ChangeFollower(searcher, changes) if changes is not None else None
        self.opening_lock = asyncio.Lock()
        self.opening_id: str | None = None
        """The item with which the page opens."""
        self.summaries_lock = asyncio.Lock()
        self.summaries: tuple[str, dict[str, AttributeSummary]] | None = None
        """A version of the index and its attributes."""
        self.summarised_at = 0.0
        # No request waits for what the first search reads and allocates.
        rows = searcher.random_rows(_WARM_UP_SEARCHES, seed=0)
        self.search_time = SearchTime(partial(_neighbours, searcher, int(row)) for row in rows)

    def close(self) -> None:
        """Apply no further changes."""
        if self.follower is not None:
            self.follower.stop()


class IndexSettings(NamedTuple):
    """What an `IndexService` needs at its start."""

    changes: FollowerConfig | None
    """None: items do not change."""
    num_threads: int
    queue_length: int
    is_on_gpu: bool = False
    recall_sample: float = 0.0
    partition: Partition = COMPLETE
    degraded_effort: float | None = None
    """Share of the search effort while all threads search; None: always all of it."""


class IndexService:
    """The index of each generation, or a partition of it; every result contains its version.

    It is a part of the gateway, or of a deployment of its own.
    Raises: as `Generations.start`.
    """

    def __init__(self, initial: ServedPair, served_uri: str, settings: IndexSettings) -> None:
        instead = "serve.search_on_gpu=false"
        self._device = device_of("gpu", instead=instead) if settings.is_on_gpu else CPU
        self._changes, self._partition = settings.changes, settings.partition
        self._degraded_effort = settings.degraded_effort
        self._live_recall = LiveRecall(settings.recall_sample, random.Random())
        self._threads = BoundedThreads("searches", settings.num_threads, settings.queue_length)
        self._photo_threads = BoundedThreads("photos", settings.num_threads, settings.queue_length)
        self._generations = Generations(
            served_uri,
            initial,
            uri_of=lambda pair: pair.index_uri,
            open_version=self._open,
            close_version=_Loaded.close,
        )
        self._generations.start()

    async def load(self, pair: ServedPair) -> None:
        """Load the index of a pair with all changes beside the others, which are searched meanwhile.

        Raises: as `Searcher` and `ChangeFollower`.
        """
        await asyncio.to_thread(self._generations.load, pair)

    async def keep(self, generations: Collection[int]) -> None:
        """Drop all other generations."""
        await asyncio.to_thread(self._generations.keep, generations)

    async def check(self, generation: int) -> list[GoldenItem]:
        """Check the index as in `check_index`; some of its items, for a check of the encoder."""
        searcher = await self._searcher(generation)
        await asyncio.to_thread(check_index, searcher)
        return await asyncio.to_thread(golden_items, searcher)

    async def info(self, generation: int) -> IndexInfo:
        """The index of a generation; this and all below raise GenerationGone."""
        return _info(await self._searcher(generation))

    async def info_for(self, generation: int, item_id: str, attributes: Attributes) -> IndexInfo:
        """The index of a generation, which an item with these attributes fits.

        Raises: as `Searcher.require_fitting`.
        """
        searcher = await self._searcher(generation)
        searcher.require_fitting(item_id, attributes)
        return _info(searcher)

    async def similar(
        self, generation: int, item_id: str, k: int, options: ShelfOptions, deadline: float
    ) -> SearchResult:
        """Neighbours of an item, by its stored vector. Raises: MissingError, InputError, DeadlineExceeded."""
        loaded = await self._generations.get(generation)
        searcher = loaded.searcher.snapshot()

        def search(searcher: Searcher) -> tuple[StoredItem, list[Neighbour]]:
            row = searcher.row_of(item_id)
            stored = _stored(searcher, row)
            return stored, shelf(searcher, stored.vector, k, options, query_row=row)

        (stored, neighbours), is_degraded = await self._run(
            loaded, searcher, search, deadline, is_plain=options.is_plain
        )
        self._sample_recall(searcher, stored.vector, options.where, is_degraded)
        return SearchResult(_info(searcher), neighbours, stored.item, is_degraded)

    async def nearest(
        self,
        generation: int,
        vector: ndarray,
        space_id: str,
        k: int,
        options: ShelfOptions,
        deadline: float,
    ) -> SearchResult:
        """Neighbours of a vector of the space `space_id`.

        Raises: SpaceMismatch, InputError, DeadlineExceeded.
        """
        loaded = await self._generations.get(generation)
        searcher = loaded.searcher.snapshot()
        require_same_space("vector", space_id, "the index", searcher.space_id)

        def search(searcher: Searcher) -> list[Neighbour]:
            return shelf(searcher, vector, k, options)

        neighbours, is_degraded = await self._run(
            loaded, searcher, search, deadline, is_plain=options.is_plain
        )
        self._sample_recall(searcher, vector, options.where, is_degraded)
        return SearchResult(_info(searcher), neighbours, is_degraded=is_degraded)

    async def stored_item(self, generation: int, item_id: str) -> StoredItem:
        """An item of this partition. Raises: MissingError."""
        searcher = await self._searcher(generation)
        return _stored(searcher, searcher.row_of(item_id))

    async def search(
        self,
        generation: int,
        vector: Float32[ndarray, " d"],
        space_id: str | None,
        wanted: Wanted,
        deadline: float,
    ) -> FoundInPart:
        """A search for a shelf in this partition; `space_id` as in `nearest`, None for a stored vector.

        Raises: as `nearest`.
        """
        loaded = await self._generations.get(generation)
        searcher = loaded.searcher.snapshot()
        if space_id is not None:
            require_same_space("vector", space_id, "the index", searcher.space_id)

        def search(searcher: Searcher) -> list[Neighbour]:
            (found,) = searcher.search(vector[None], wanted.k, where=wanted.where)
            return found

        found, is_degraded = await self._run(
            loaded, searcher, search, deadline, is_plain=wanted.where is None
        )
        self._sample_recall(searcher, vector, wanted.where, is_degraded)
        return FoundInPart(_info(searcher), searcher.attribute_names, found, is_degraded)

    async def sample(self, generation: int, limit: int, seed: int) -> list[IndexedItem]:
        """Random items; equal seeds give equal items."""
        searcher = await self._searcher(generation)
        rows = await asyncio.to_thread(searcher.random_rows, limit, seed)  # of all items: it takes long
        return [searcher.item(int(row)) for row in rows]

    async def opening_item(self, generation: int) -> IndexedItem | None:
        """The item with which the page opens; computed once for each index, and again when it is deleted."""
        loaded = await self._generations.get(generation)
        async with loaded.opening_lock:  # many pages may open at once
            searcher = loaded.searcher.snapshot()
            if loaded.opening_id is None or loaded.opening_id not in searcher:
                row = await asyncio.to_thread(opening_row, searcher)
                if row is None:
                    return None
                loaded.opening_id = searcher.item(row).item_id
            return searcher.item(searcher.row_of(loaded.opening_id))

    async def attributes(self, generation: int) -> tuple[str, dict[str, AttributeSummary]]:
        """A version of the index and its attributes; after a change they may be a minute old."""
        loaded = await self._generations.get(generation)
        async with loaded.summaries_lock:
            searcher, now = loaded.searcher.snapshot(), time.monotonic()
            known = loaded.summaries
            if known is None or (
                known[0] != searcher.version and now - loaded.summarised_at > _SUMMARY_AGE_S
            ):
                summaries = await asyncio.to_thread(searcher.attribute_summaries)
                known = loaded.summaries = searcher.version, summaries
                loaded.summarised_at = now
            return known

    async def photo(self, generation: int, item_id: str, deadline: float) -> bytes:
        """The photo of an item, read from its shard. Raises: MissingError, DeadlineExceeded."""
        searcher = await self._searcher(generation)
        return await self._photo_threads.run(deadline, searcher.photo, searcher.row_of(item_id))

    async def _run(
        self,
        loaded: _Loaded,
        searcher: Searcher,
        search: Callable[[Searcher], T],
        deadline: float,
        *,
        is_plain: bool,
    ) -> tuple[T, bool]:
        """The result of a search, and whether it had the degraded effort because it would have waited.

        Those that are plain and short are made here, all others in a thread.
        """
        if is_plain and loaded.search_time.is_short:
            require_time(deadline)
            return loaded.search_time.of(partial(search, searcher)), False
        is_degraded = self._degraded_effort is not None and self._threads.are_busy
        if self._degraded_effort is not None and is_degraded:
            metrics.record("raysys_degraded_searches", 1)
            searcher = searcher.with_effort(self._degraded_effort)
        call = partial(search, searcher)
        if is_plain and not is_degraded:
            return await self._threads.run(deadline, loaded.search_time.of, call), False
        return await self._threads.run(deadline, call), is_degraded

    def _sample_recall(self, searcher: Searcher, vector: ndarray, where: Any, is_degraded: bool) -> None:
        """The live recall is that of searches with their full effort."""
        if not is_degraded:
            self._live_recall.sample(searcher, vector, where)

    async def _searcher(self, generation: int) -> Searcher:
        """The index as it is now: changes that arrive during a request do not reach it."""
        return (await self._generations.get(generation)).searcher.snapshot()

    def _open(self, uri: str) -> _Loaded:
        is_on_gpu = isinstance(self._device, Gpu)
        searcher = Searcher(uri, self._device, is_on_device=is_on_gpu, partition=self._partition)
        return _Loaded(searcher, self._changes)


def _neighbours(searcher: Searcher, row: int) -> list[Neighbour]:
    return shelf(searcher, searcher.vector(row), _WARM_UP_K, query_row=row)


def _stored(searcher: Searcher, row: int) -> StoredItem:
    return StoredItem(searcher.item(row), searcher.vector(row))


def _info(searcher: Searcher) -> IndexInfo:
    return IndexInfo(
        searcher.space_id,
        searcher.version,
        len(searcher),
        searcher.num_files,
        searcher.manifest.dimensions,
        searcher.last_change,
    )
