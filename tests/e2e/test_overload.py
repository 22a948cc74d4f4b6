"""More requests than the service works on: it refuses the rest in its own format, and is well afterwards."""

from __future__ import annotations

import asyncio

import httpx

from raysys.config.schema import ServeConfig
from tests.e2e.conftest import Served

CLIENTS = 2 * ServeConfig().max_requests
TEXTS = ["a red dress", "赤 ワンピース", "a mug"]
GENEROUS_S = 60.0


async def embed_at_once(url: str) -> list[httpx.Response]:
    """The responses to `CLIENTS` requests that are sent at the same time."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=GENEROUS_S, limits=limits) as client:
        requests = (client.post(f"{url}v1/embed", json={"texts": TEXTS}) for _ in range(CLIENTS))
        return await asyncio.gather(*requests)


def test_requests_beyond_the_limit_are_refused_with_retry_after(served: Served) -> None:
    responses = asyncio.run(embed_at_once(served.url))
    by_status: dict[int, list[httpx.Response]] = {}
    for response in responses:
        by_status.setdefault(response.status_code, []).append(response)
    assert by_status.keys() <= {200, 503, 504}, by_status.keys()  # 504: a slow machine
    assert by_status[200]
    assert by_status[503]
    for response in by_status[200]:
        assert len(response.json()["vectors"]) == len(TEXTS)
    for response in by_status[503]:
        assert response.headers["Retry-After"] == "1"
        assert response.json()["error"]["code"] == "overloaded"
    for response in by_status.get(504, []):
        assert response.json()["error"]["code"] == "deadline_exceeded"

    again = httpx.post(f"{served.url}v1/embed", json={"texts": TEXTS}, timeout=GENEROUS_S)
    assert len(again.json()["vectors"]) == len(TEXTS), again.text
    ready = httpx.get(f"{served.url}readyz", timeout=GENEROUS_S)
    assert ready.json()["status"] == "ready", ready.text
