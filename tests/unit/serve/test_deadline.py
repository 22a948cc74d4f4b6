"""The deadline of a request: where it comes from, and what is skipped or cancelled after it."""

from __future__ import annotations

import asyncio
import math
import pickle
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from raysys.errors import DeadlineExceeded
from raysys.index.shelf import ShelfOptions
from raysys.serve.deadline import NEVER, Deadline, require_time
from raysys.serve.encoder_deployment import Input, embed_batch
from tests.unit.serve.conftest import HashEncoder, Service, client_of_gateway

HEADER = "X-Request-Timeout-Ms"
QUERY = {"text": "red dress"}


class EndlessEncoder(HashEncoder):
    """An encoder that never embeds a text; it keeps the deadlines, and whether its calls were cancelled."""

    def __init__(self) -> None:
        self.deadlines: list[float] = []
        self.num_cancelled = 0
        self.was_called = asyncio.Event()

    async def embed_titles(self, generation: int, titles: list[str], deadlines: list[float]) -> Any:
        self.deadlines += deadlines
        self.was_called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise


def test_request_ends_at_the_deadline_of_the_service(serve_with: Callable[..., Service]) -> None:
    encoder = EndlessEncoder()
    response = serve_with(encoder=encoder, request_timeout_s=0.01).post("/v1/search", json=QUERY)
    assert_exceeded(response)
    assert encoder.num_cancelled == 1


def test_client_can_set_an_earlier_deadline_but_no_later_one(serve_with: Callable[..., Service]) -> None:
    encoder = EndlessEncoder()
    service = serve_with(encoder=encoder, request_timeout_s=0.05)
    for timeout_ms in ("10", "60000"):
        assert_exceeded(service.post("/v1/search", json=QUERY, headers={HEADER: timeout_ms}))
    assert max(encoder.deadlines) <= time.monotonic()


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "soon", "", "9" * 30, "²"])
def test_header_that_is_no_number_of_milliseconds_is_an_error(service: Service, value: str) -> None:
    response = service.get("/v1/items", headers={HEADER: value.encode()})
    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith(f"{HEADER}: ")


def test_time_of_the_upload_does_not_count(serve_with: Callable[..., Service]) -> None:
    class NotedEncoder(HashEncoder):
        async def embed_titles(self, generation: int, titles: list[str], given: list[float]) -> Any:
            deadlines.extend(given)
            return [self._vector(title.encode()) for title in titles]

    async def body() -> AsyncIterator[bytes]:
        yield b'{"text":'
        arrived.append(time.monotonic())
        yield b'"a"}'

    deadlines: list[float] = []
    arrived: list[float] = []
    service = serve_with(encoder=NotedEncoder(), request_timeout_s=60.0)
    response = service.post("/v1/search", content=body(), headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    assert deadlines[0] >= arrived[0] + 60.0


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_step_of_the_system_clock_moves_no_deadline(
    serve_with: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    class SteppingEncoder(HashEncoder):
        async def embed_titles(self, generation: int, titles: list[str], deadlines: list[float]) -> Any:
            now = time.time()
            monkeypatch.setattr(time, "time", lambda: now + step_s)
            return [self._vector(title.encode()) for title in titles]

    service = serve_with(encoder=SteppingEncoder(), request_timeout_s=60.0)
    assert (
        service.post("/v1/search", json=QUERY).status_code == 200
    )  # embedded before, searched after the step


def test_deadline_in_another_process_is_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    sent = pickle.dumps([Deadline.after(5.0), Deadline(NEVER)])
    monkeypatch.setattr(time, "monotonic", lambda: 7.0)  # of a node that was started later
    received, never = pickle.loads(sent)
    assert (received, never) == (12.0, NEVER)
    require_time(received)
    monkeypatch.setattr(time, "monotonic", lambda: 12.0)
    with pytest.raises(DeadlineExceeded):
        require_time(received)


def test_client_that_leaves_cancels_the_call_of_the_encoder(serve_with: Callable[..., Service]) -> None:
    encoder = EndlessEncoder()

    async def leave() -> None:
        serve_with(encoder=encoder)
        async with client_of_gateway() as client:
            request = asyncio.create_task(client.post("/v1/search", json=QUERY))
            await encoder.was_called.wait()
            request.cancel()  # as Ray Serve does with the task of a request whose client left
            with pytest.raises(asyncio.CancelledError):
                await request

    asyncio.run(leave())
    assert encoder.num_cancelled == 1


def test_search_that_would_begin_too_late_is_skipped(serve_with: Callable[..., Service]) -> None:
    search = serve_with().search
    with pytest.raises(DeadlineExceeded):
        asyncio.run(search.similar(1, "m1", 3, ShelfOptions(), 0.0))
    with pytest.raises(DeadlineExceeded):
        asyncio.run(search.photo(1, "m1", 0.0))


def test_batch_embeds_only_the_inputs_that_are_in_time() -> None:
    embedded: list[list[str]] = []

    def embed(_: Any, texts: list[str]) -> np.ndarray:
        embedded.append(texts)
        return np.array([[len(text)] for text in texts])

    encoder: Any = None
    late, in_time = 0.0, math.inf
    inputs = [Input(encoder, "a", late), Input(encoder, "bb", in_time), Input(encoder, "ccc", late)]
    with ThreadPoolExecutor(1) as threads:
        vectors = asyncio.run(embed_batch(inputs, embed, threads))
        assert embedded == [["bb"]]
        assert [None if vector is None else vector.tolist() for vector in vectors] == [None, [2], None]
        assert asyncio.run(embed_batch([Input(encoder, "a", late)], embed, threads)) == [None]
    assert len(embedded) == 1


def assert_exceeded(response: httpx.Response) -> None:
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
