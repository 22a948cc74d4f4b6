"""The time until which a request is worth an answer, and what happens after it.

The gateway passes the deadline of a request to the encoder and the searcher. Work that would begin after it
is skipped. When the deadline passes in the gateway, or the client leaves, the task of the request is
cancelled, and Ray Serve cancels its calls with it.

A deadline is a time of the monotonic clock, which no correction of the system's time moves. Another node has
another one: pickled, a deadline is the time that is left, as in gRPC.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raysys.config.schema import ServeConfig
from raysys.errors import DeadlineExceeded, InputError, RaysysError

HEADER = "X-Request-Timeout-Ms"
NEVER = math.inf
# Changes have the limit of their database, `store.timeout_s`: a shorter wait would not end the change.
_CHANGES = frozenset({("POST", "/v1/changes")})
_CHANGE_METHODS = frozenset({"PUT", "DELETE"})


class Deadline(float):
    """Seconds of the monotonic clock of the process that has it."""

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    def __reduce__(self) -> tuple[Callable[[float], Deadline], tuple[float]]:
        return Deadline.after, (self - time.monotonic(),)


class _RequestDeadline:
    """Of one request; its body may still arrive, so it is set in two steps."""

    at = Deadline(NEVER)


_current: contextvars.ContextVar[_RequestDeadline | None] = contextvars.ContextVar("deadline", default=None)


def current_deadline() -> Deadline:
    """The deadline of the request that this task answers; else `NEVER`."""
    deadline = _current.get()
    return Deadline(NEVER) if deadline is None else deadline.at


def has_passed(deadline: float) -> bool:
    """Whether it is too late to begin."""
    return time.monotonic() >= deadline


def require_time(deadline: float) -> None:
    """Raises: DeadlineExceeded if `deadline` has passed."""
    if has_passed(deadline):
        raise DeadlineExceeded("the deadline of the request has passed; try again later, or allow more time")


class DeadlineMiddleware:
    """Ends a request at its deadline with the response of `on_error`.

    The deadline is `serve.request_timeout_s` after the body has arrived (not for changes of items), or the
    number of milliseconds in the header `X-Request-Timeout-Ms` after the request has arrived, if that is
    earlier.
    """

    def __init__(
        self, app: ASGIApp, settings: Callable[[], ServeConfig], on_error: Callable[[RaysysError], Response]
    ) -> None:
        self._app, self._settings, self._on_error = app, settings, on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the routes until the deadline."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            client_timeout_s = _client_timeout_s(Headers(scope=scope))
        except InputError as error:
            await self._on_error(error)(scope, receive, send)
            return
        is_started = False

        async def tracked_send(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            async with asyncio.timeout(None) as timer:
                limited = _limited(
                    scope, receive, timer, client_timeout_s, self._settings().request_timeout_s
                )
                await self._app(scope, limited, tracked_send)
        except TimeoutError:
            if is_started or not timer.expired():
                raise
            exceeded = DeadlineExceeded("no answer before the deadline of the request; try again later")
            await self._on_error(exceeded)(scope, receive, send)


def _limited(
    scope: Scope, receive: Receive, timer: asyncio.Timeout, client_timeout_s: float, timeout_s: float
) -> Receive:
    """Set the deadline of this task's request; the returned `receive` may set an earlier one."""
    deadline = _RequestDeadline()
    _current.set(deadline)

    def end_in(seconds: float) -> None:
        at = Deadline.after(seconds)
        if at < deadline.at:
            deadline.at = at
            timer.reschedule(asyncio.get_running_loop().time() + seconds)

    end_in(client_timeout_s)
    route = scope["method"], scope["path"]
    if route in _CHANGES or scope["method"] in _CHANGE_METHODS:
        return receive
    if scope["method"] != "POST":
        end_in(timeout_s)
        return receive

    async def receive_body() -> Message:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            end_in(timeout_s)
        return message

    return receive_body


def _client_timeout_s(headers: Headers) -> float:
    text = headers.get(HEADER)
    if text is None:
        return NEVER
    # As many digits as 11 days have: `isdecimal` alone accepts numbers that no clock can hold.
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and int(text) > 0):
        raise InputError(f"{HEADER}: must be a whole number of milliseconds from 1, got {text!r}")
    return int(text) / 1000
