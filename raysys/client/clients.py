"""`Client` and `AsyncClient`: they send the calls of `queries` and `changes`. All else is common to both."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx

from raysys.client import changes, queries
from raysys.client.attempts import Attempts
from raysys.client.call import Call
from raysys.client.responses import Response
from raysys.client.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")


def _documented_by(describe: Callable[..., Call[Any]]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Give a method the name, the docstring and the signature of the function that describes its call."""

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        functools.update_wrapper(method, describe)
        signature = inspect.signature(describe)
        this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        vars(method)["__signature__"] = signature.replace(
            parameters=[this, *signature.parameters.values()],
            return_annotation=signature.return_annotation.removeprefix("Call[").removesuffix("]"),
        )
        return method

    return decorate


def _method(describe: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """The method of `Client` that makes a call."""

    @_documented_by(describe)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._send(describe(*args, **kwargs))

    return method


def _async_method(
    describe: Callable[P, Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """The method of `AsyncClient` that makes a call."""

    @_documented_by(describe)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        # In a thread: it may read photos and encode them.
        return await self._send(await asyncio.to_thread(describe, *args, **kwargs))

    return method


class Client:
    """A client of the HTTP service; threads can share it.

    `timeout_s` bounds a call with its retries, from the first request to the complete response. It does not
    cover the look-up of a host name by the system, and is checked whenever bytes arrive: a service that
    stalls in the middle of a response can take it up to twice. `retries` is the number of further attempts
    after a failed connection and after status 429, 502, 503 or 504; the wait is Retry-After, else from 0.1 s,
    doubled. `transport` replaces the network, as in httpx.
    Raises, also in every call: InputError for invalid arguments, ServiceUnavailable, and the error of
    `raysys.errors` with the code of the service.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings = Settings.checked(url, token, timeout_s, retries)
        self._http = httpx.Client(
            base_url=self._settings.url, headers=self._settings.headers, transport=transport
        )

    ready = _method(queries.ready)
    items = _method(queries.items)
    attributes = _method(queries.attributes)
    photo = _method(queries.photo)
    similar = _method(queries.similar)
    search = _method(queries.search)
    embed = _method(queries.embed)
    upsert = _method(changes.upsert)
    delete = _method(changes.delete)
    apply = _method(changes.apply)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return self._settings.describe(type(self).__name__)

    def _send(self, call: Call[T]) -> T:
        attempts = self._settings.attempts(call)
        while True:
            outcome = self._receive(call, attempts)
            wait_s = attempts.wait_s(outcome)
            if wait_s is None:
                return attempts.result(call, outcome)
            time.sleep(wait_s)

    def _receive(self, call: Call[Any], attempts: Attempts) -> Response | httpx.RequestError:
        try:
            with self._http.stream(**_request(call, attempts)) as response:
                chunks = []
                for chunk in response.iter_bytes():
                    attempts.remaining_s()
                    chunks.append(chunk)
                return Response(response.status_code, response.headers, b"".join(chunks))
        except httpx.RequestError as error:
            return error


class AsyncClient:
    """As `Client`, for asyncio: the same methods as coroutines, for one event loop.

    `timeout_s` is exact here.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = Settings.checked(url, token, timeout_s, retries)
        self._http = httpx.AsyncClient(
            base_url=self._settings.url, headers=self._settings.headers, transport=transport
        )

    ready = _async_method(queries.ready)
    items = _async_method(queries.items)
    attributes = _async_method(queries.attributes)
    photo = _async_method(queries.photo)
    similar = _async_method(queries.similar)
    search = _async_method(queries.search)
    embed = _async_method(queries.embed)
    upsert = _async_method(changes.upsert)
    delete = _async_method(changes.delete)
    apply = _async_method(changes.apply)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return self._settings.describe(type(self).__name__)

    async def _send(self, call: Call[T]) -> T:
        attempts = self._settings.attempts(call)
        try:
            async with asyncio.timeout(attempts.remaining_s()):
                while True:
                    outcome = await self._receive(call, attempts)
                    wait_s = attempts.wait_s(outcome)
                    if wait_s is None:
                        return attempts.result(call, outcome)
                    await asyncio.sleep(wait_s)
        except TimeoutError as error:
            raise attempts.timed_out() from error

    async def _receive(self, call: Call[Any], attempts: Attempts) -> Response | httpx.RequestError:
        try:
            async with self._http.stream(**_request(call, attempts)) as response:
                return Response(response.status_code, response.headers, await response.aread())
        except httpx.RequestError as error:
            return error


def _request(call: Call[Any], attempts: Attempts) -> dict[str, Any]:
    """The arguments of `stream` of httpx."""
    return {
        "method": call.method,
        "url": call.path,
        "content": call.body,
        "headers": {} if call.body is None else {"Content-Type": "application/json"},
        "timeout": attempts.remaining_s(),
    }
