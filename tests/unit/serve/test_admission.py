"""A gateway that works on as many requests as it may refuses others at once, and answers again afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from ray.exceptions import ActorUnavailableError
from ray.serve.exceptions import BackPressureError

from raysys.serve import gateway
from raysys.serve.encoder_deployment import EncoderInfo
from tests.unit.serve.conftest import HashEncoder, Service, client_of_gateway

LIMIT = 2


class WaitingEncoder(HashEncoder):
    """An encoder that embeds a text once `may_continue` is set; `waiting` counts the calls."""

    def __init__(self) -> None:
        self.may_continue = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)

    async def embed_title(self, generation: int, title: str, deadline: float) -> object:  # type: ignore[override]
        self.waiting.release()
        await self.may_continue.wait()
        return self._vector(title.encode())


class FullEncoder(HashEncoder):
    """An encoder whose queue is full."""

    async def embed_title(self, generation: int, title: str, deadline: float) -> object:  # type: ignore[override]
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


@pytest.mark.parametrize("path", ["/v1/search", "/v1/embed"])
def test_full_queue_of_the_encoder_is_the_same_refusal(serve_with: Callable[..., Service], path: str) -> None:
    body = {"text": "a"} if path == "/v1/search" else {"texts": ["a"]}
    assert_overloaded(serve_with(encoder=FullEncoder()).post(path, json=body))


class LostEncoder(HashEncoder):
    """An encoder whose replica is killed while it works."""

    async def embed_title(self, generation: int, title: str, deadline: float) -> object:  # type: ignore[override]
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

    monkeypatch.setattr(gateway, "READY_TIMEOUT_S", 0.01)
    response = serve_with(encoder=StartingEncoder()).get("/readyz")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
