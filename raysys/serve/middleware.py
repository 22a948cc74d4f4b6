"""What every response has, whatever its route: security headers, CORS, an entry of the access log, metrics.

Pure ASGI: Starlette's BaseHTTPMiddleware would copy every body through a queue.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raysys.config.schema import ServeConfig
from raysys.serve import metrics
from raysys.serve.access_log import log_request
from raysys.serve.security_headers import add_security_headers

_UNMATCHED = "unmatched"  # instead of the path of a request, so that the label has few values


class ServiceMiddleware:
    """Wraps all routes; `settings` returns those of the replica, `on_error` the response to an exception."""

    def __init__(
        self, app: ASGIApp, settings: Callable[[], ServeConfig], on_error: Callable[[Exception], Response]
    ) -> None:
        self._app = app
        self._settings = settings
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the routes and add to their response. An exception is raised again after its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        settings = self._settings()
        started, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                add_security_headers(MutableHeaders(scope=message))
            await send(message)

        try:
            await _with_cors(self._app, settings.cors_origins)(scope, receive, send_with_headers)
        except Exception as error:
            if status == 0:
                await self._on_error(error)(scope, receive, send_with_headers)
            raise
        finally:
            _record(scope, status, 1000 * (time.perf_counter() - started), settings)


@functools.lru_cache(maxsize=8)
def _with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "X-Request-Id", "X-Request-Timeout-Ms"],
        expose_headers=["X-Request-Id", "Retry-After", "X-Degraded"],
    )


def _record(scope: Scope, status: int, duration_ms: float, settings: ServeConfig) -> None:
    route: Any = scope.get("route")
    template = _UNMATCHED if route is None else route.path_format
    metrics.record("raysys_requests", 1, method=scope["method"], route=template, status=str(status))
    metrics.record("raysys_request_ms", duration_ms, route=template)
    if settings.access_log == "json":
        log_request(
            method=scope["method"],
            route=template,
            status=status,
            duration_ms=duration_ms,
            request_id=Headers(scope=scope).get("x-request-id", ""),
            token=scope.get("state", {}).get("token_name"),
        )
