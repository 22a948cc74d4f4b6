"""Refuses requests at once when the gateway works on as many as it may."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from raysys.config.schema import ServeConfig
from raysys.errors import RaysysError, ServiceUnavailable

# Probes must answer under load: a service that is restarted because it is busy answers nobody.
_PROBES = frozenset({"/healthz", "/readyz"})


class AdmissionMiddleware:
    """Up to `serve.max_requests` requests at a time; the others get the response of `on_error`.

    Ray Serve has limits, too, but its proxies refuse in plain text, and in another one each.
    """

    def __init__(
        self, app: ASGIApp, settings: Callable[[], ServeConfig], on_error: Callable[[RaysysError], Response]
    ) -> None:
        self._app, self._settings, self._on_error = app, settings, on_error
        self._num_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the routes, or refuse before a byte of the body is read."""
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        limit = self._settings().max_requests
        if self._num_requests >= limit:
            error = ServiceUnavailable(f"the service works on {limit} requests already; try again")
            await self._on_error(error)(scope, receive, send)
            return
        self._num_requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._num_requests -= 1
