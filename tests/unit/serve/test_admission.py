"""A gateway that works on as many requests as it may refuses others at once, and answers again afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from ray.exceptions import ActorUnavailableError
from ray.serve.exceptions import BackPressureError

from raysys.config.schema import ServeConfig
from raysys.serve.admission import encoder_requests
from raysys.serve.encoder_deployment import EncoderInfo
from raysys.serve.gateway_state import gateway_state
from raysys.serve.routes import probes
from tests.factories import photo
from tests.unit.serve.conftest import DIMENSIONS, SPACE_ID, HashEncoder, Service, client_of_gateway

LIMIT = 2


class WaitingEncoder(HashEncoder):
    """An encoder that embeds a text once `may_continue` is set; `waiting` counts the calls."""

    def __init__(self) -> None:
        self.may_continue = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)

    async def embed_titles(self, generation: int, titles: list[str], deadlines: list[float]) -> Any:
        self.waiting.release()
        await self.may_continue.wait()
        return [self._vector(title.encode()) for title in titles]


class FullEncoder(HashEncoder):
    """An encoder whose queue is full."""

    async def embed_titles(self, generation: int, titles: list[str], deadlines: list[float]) -> Any:
        raise BackPressureError(num_queued_requests=1, max_queued_requests=1)


async def search(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/v1/search", json={"text": "red dress"})


def test_request_beyond_the_limit_is_refused_and_later_ones_are_answered(
    serve_with: Callable[..., Service],
) -> None:
    async def run() -> tuple[httpx.Response, ...]:
        encoder = WaitingEncoder()
        serve_with(encoder=encoder, max_requests=LIMIT)
        async with client_of_gateway() as client:
            accepted = [asyncio.create_task(search(client)) for _ in range(LIMIT)]
            for _ in accepted:
                await encoder.waiting.acquire()
            refused, probe = await search(client), await client.get("/readyz")
            encoder.may_continue.set()
            return refused, probe, *await asyncio.gather(*accepted), await search(client)

    refused, probe, *answered = asyncio.run(run())
    assert_overloaded(refused)
    assert refused.headers["X-Content-Type-Options"] == "nosniff"  # as every response
    assert probe.status_code == 200
    assert [response.status_code for response in answered] == [200, 200, 200]


def test_more_photos_and_texts_than_the_encoder_may_have_are_refused(
    serve_with: Callable[..., Service],
) -> None:
    async def run() -> tuple[list[httpx.Response], list[httpx.Response]]:
        encoder = WaitingEncoder()
        serve_with(encoder=encoder, max_encoder_requests=LIMIT, encoder_replicas=1)
        async with client_of_gateway() as client:
            accepted = [asyncio.create_task(search(client)) for _ in range(LIMIT)]
            for _ in accepted:
                await encoder.waiting.acquire()
            refused = [
                await search(client),
                await client.post("/v1/search", files={"image": ("a.jpg", photo())}),
                await client.post("/v1/embed", json={"texts": ["a"]}),
            ]
            vector = {"vector": [1.0] * DIMENSIONS, "space_id": SPACE_ID}
            others = [await client.post("/v1/search", json=vector), await client.get("/v1/items/m1/similar")]
            encoder.may_continue.set()
            return refused, [*others, *await asyncio.gather(*accepted), await search(client)]

    refused, answered = asyncio.run(run())
    for response in refused:
        assert_overloaded(response)
    assert [response.status_code for response in answered] == [200] * 5


def test_photo_is_refused_before_its_body_is_read(serve_with: Callable[..., Service]) -> None:
    async def run() -> httpx.Response:
        serve_with()
        with contextlib.ExitStack() as places:
            for _ in range(encoder_requests(ServeConfig())):
                places.enter_context(gateway_state().limits.encoder_requests.taken())
            async with client_of_gateway() as client:
                form = {"Content-Type": "multipart/form-data; boundary=b"}
                return await client.post("/v1/search", content=unreadable_body(), headers=form)

    assert_overloaded(asyncio.run(run()))


async def unreadable_body() -> AsyncIterator[bytes]:
    """A body that must not be read."""
    raise AssertionError
    yield b""


def test_queries_by_item_have_a_limit_of_their_own(serve_with: Callable[..., Service]) -> None:
    async def run() -> tuple[httpx.Response, ...]:
        serve_with(max_item_queries=1)
        with gateway_state().limits.item_queries.taken():
            async with client_of_gateway() as client:
                return (
                    await client.get("/v1/items/m1/similar"),
                    await client.get("/v1/items"),
                    await client.get("/v1/admin/versions"),
                )

    refused, items, versions = asyncio.run(run())
    assert_overloaded(refused)
    assert (items.status_code, versions.status_code) == (200, 200)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 4),
        ({"encoder_replicas": 3}, 12),
        ({"use_gpu": True, "max_batch_size": 16}, 32),  # one batch that is embedded, one that waits
        ({"use_gpu": True, "max_encoder_requests": 5, "encoder_replicas": 2}, 10),
    ],
)
def test_encoder_requests_follow_the_device_and_the_replicas(settings: dict[str, Any], expected: int) -> None:
    assert encoder_requests(ServeConfig(**settings)) == expected


@pytest.mark.parametrize("path", ["/v1/search", "/v1/embed"])
def test_full_queue_of_the_encoder_is_the_same_refusal(serve_with: Callable[..., Service], path: str) -> None:
    body = {"text": "a"} if path == "/v1/search" else {"texts": ["a"]}
    assert_overloaded(serve_with(encoder=FullEncoder()).post(path, json=body))


class LostEncoder(HashEncoder):
    """An encoder whose replica is killed while it works."""

    async def embed_titles(self, generation: int, titles: list[str], deadlines: list[float]) -> Any:
        raise ActorUnavailableError("The actor is temporarily unavailable: RpcError: ..", None)


def test_lost_replica_is_a_refusal_that_a_client_may_repeat(serve_with: Callable[..., Service]) -> None:
    response = serve_with(encoder=LostEncoder()).post("/v1/search", json={"text": "a"})
    assert_overloaded(response)
    assert "a replica ended while it worked on the request" in response.text


def assert_overloaded(response: httpx.Response) -> None:
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.json()["error"]["code"] == "overloaded"


def test_service_is_not_ready_while_its_encoder_does_not_answer(
    serve_with: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    class StartingEncoder(HashEncoder):
        async def info(self, generation: int) -> EncoderInfo:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(probes, "READY_TIMEOUT_S", 0.01)
    response = serve_with(encoder=StartingEncoder()).get("/readyz")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
