"""A service that a test scripts, and both clients of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import raysys

URL = "http://shop.example:8000"
Outcome = httpx.Response | httpx.RequestError


class Service:
    """Returns one outcome after the other, the last one again and again, and keeps the requests."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        outcome = self.outcomes[min(len(self.requests), len(self.outcomes)) - 1]
        if isinstance(outcome, httpx.RequestError):
            raise outcome
        return httpx.Response(outcome.status_code, headers=outcome.headers, content=outcome.content)

    @property
    def sent(self) -> tuple[str, str, Any]:
        """Method, raw path and JSON body of the only request."""
        (request,) = self.requests
        body = json.loads(request.content) if request.content else None
        return request.method, request.url.raw_path.decode(), body


Send = Callable[..., Any]


def send_sync(service: Service, name: str, *args: Any, settings: Any = None, **kwargs: Any) -> Any:
    with raysys.Client(URL, transport=httpx.MockTransport(service), **(settings or {})) as client:
        return getattr(client, name)(*args, **kwargs)


def send_async(service: Service, name: str, *args: Any, settings: Any = None, **kwargs: Any) -> Any:
    async def send() -> Any:
        transport = httpx.MockTransport(service)
        async with raysys.AsyncClient(URL, transport=transport, **(settings or {})) as client:
            return await getattr(client, name)(*args, **kwargs)

    return asyncio.run(send())


@pytest.fixture(params=[send_sync, send_async], ids=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Send:
    """Make a call with a new client: `send(service, "similar", "m1", k=3)`."""
    function: Send = request.param
    return function


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a client waited between attempts; no time passes."""
    seconds: list[float] = []

    async def sleep(wait_s: float) -> None:
        seconds.append(wait_s)

    monkeypatch.setattr(time, "sleep", seconds.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return seconds
