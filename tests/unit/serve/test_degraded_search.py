"""Searches with less effort while all threads search say so, are not kept, and are not in the live recall."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from raysys.index.search import Searcher
from raysys.index.shelf import ShelfOptions, shelf
from raysys.serve import index_service, metrics, search_time
from raysys.serve.index_service import FoundInPart, IndexInfo
from raysys.serve.partitioned_index import PartitionedIndex
from tests.unit.serve.conftest import DIMENSIONS, SPACE_ID, Handle, Service, client_of_gateway

SIMILAR = "/v1/items/m1/similar"
VECTOR = {"vector": [1.0] * DIMENSIONS, "space_id": SPACE_ID}
INFO = IndexInfo(SPACE_ID, "v.0", num_items=0, dimensions=DIMENSIONS, last_change=0, num_files=2)


class RecordingRecall:
    """Counts the queries that are sampled."""

    num_queries = 0

    def __init__(self, *_: object) -> None:
        pass

    def sample(self, *_: object) -> None:
        RecordingRecall.num_queries += 1


@pytest.fixture
def two_at_a_time(monkeypatch: pytest.MonkeyPatch, serve_with: Callable[..., Service]) -> Callable[..., Any]:
    """The responses to a query that has the only thread, and to one that comes meanwhile; and the metrics."""
    monkeypatch.setattr(RecordingRecall, "num_queries", 0)
    monkeypatch.setattr(index_service, "LiveRecall", RecordingRecall)
    monkeypatch.setattr(search_time, "SHORT_MS", -1.0)  # every search has a thread

    def send(effort: float | None, second: Callable[[httpx.AsyncClient], Any]) -> Any:
        serve_with(search_threads=1, degraded_search_effort=effort)
        is_searching, is_second, may_continue = (threading.Event() for _ in range(3))
        recorded: list[str] = []

        def held(*arguments: Any, **options: Any) -> Any:
            is_searching.set()
            assert may_continue.wait(10)
            return shelf(*arguments, **options)

        def with_effort(index: Searcher, share: float) -> Searcher:
            assert share == effort
            return index.snapshot()

        monkeypatch.setattr(index_service, "shelf", held)
        monkeypatch.setattr(Searcher, "with_effort", with_effort)
        monkeypatch.setattr(metrics, "record", lambda name, value, **_: recorded.append(name))
        snapshot = Searcher.snapshot

        def counted_snapshot(index: Searcher) -> Searcher:
            if is_searching.is_set():
                is_second.set()
            return snapshot(index)

        monkeypatch.setattr(Searcher, "snapshot", counted_snapshot)

        async def run() -> list[httpx.Response]:
            async with client_of_gateway() as client:
                first = asyncio.create_task(client.get(SIMILAR))
                await asyncio.to_thread(is_searching.wait, 10)
                later = asyncio.create_task(second(client))
                await asyncio.to_thread(is_second.wait, 10)
                may_continue.set()
                return [await first, await later]

        return *asyncio.run(run()), recorded

    return send


def test_query_by_item_that_would_wait_is_degraded(two_at_a_time: Callable[..., Any]) -> None:
    full, degraded, recorded = two_at_a_time(0.5, lambda client: client.get(SIMILAR))
    assert "X-Degraded" not in full.headers
    assert full.headers["ETag"]
    assert degraded.status_code == 200
    assert degraded.headers["X-Degraded"] == "search-effort"
    assert degraded.headers["Cache-Control"] == "no-store"
    assert "ETag" not in degraded.headers
    assert recorded.count("raysys_degraded_searches") == 1
    assert RecordingRecall.num_queries == 1


def test_search_by_vector_that_would_wait_is_degraded(two_at_a_time: Callable[..., Any]) -> None:
    _, degraded, recorded = two_at_a_time(0.5, lambda client: client.post("/v1/search", json=VECTOR))
    assert degraded.headers["X-Degraded"] == "search-effort"
    assert recorded.count("raysys_degraded_searches") == 1
    assert RecordingRecall.num_queries == 1


def test_no_search_is_degraded_by_default(two_at_a_time: Callable[..., Any]) -> None:
    for response in two_at_a_time(None, lambda client: client.get(SIMILAR))[:2]:
        assert response.headers["ETag"]
        assert "X-Degraded" not in response.headers
    assert RecordingRecall.num_queries == 2


class Part:
    """A partition without items, whose searches are degraded or not."""

    def __init__(self, *, is_degraded: bool) -> None:
        self._is_degraded = is_degraded

    async def info(self, generation: int) -> IndexInfo:
        return INFO

    async def search(self, *_: object) -> FoundInPart:
        return FoundInPart(INFO, [], [], self._is_degraded)


@pytest.mark.parametrize("is_degraded", [False, True])
def test_shelf_is_degraded_if_a_partition_is(is_degraded: bool) -> None:
    index = PartitionedIndex([Handle(Part(is_degraded=False)), Handle(Part(is_degraded=is_degraded))])
    vector = np.ones(DIMENSIONS, np.float32)
    result = asyncio.run(index.nearest(1, vector, SPACE_ID, 3, ShelfOptions(), 0.0))
    assert result.is_degraded is is_degraded
