"""Refuses requests at once when the gateway works on as many as it may.

HAProxy refuses most of them before, where it receives the requests (`ingress.py`), at a tenth of the cost.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from raysys.config.schema import ServeConfig
from raysys.errors import RaysysError, ServiceUnavailable

# Probes must answer under load: a service that is restarted because it is busy answers nobody. So must the
# routes with which an operator helps it.
PROBES = ("/healthz", "/readyz")
ADMIN = "/v1/admin/"
ITEM_QUERY = "/similar"
"""The end of the path of a query by item."""
FORM = "multipart/form-data"
"""The media type of a request with a photo, which waits for the encoder."""
# Under overload the last accepted request waits for all others: of four, on a CPU, about as long as it takes.
_ON_CPU = 4


def requests_per_encoder(section: ServeConfig) -> int:
    """Requests for an encoder replica: on a GPU, a batch that is embedded and the next one."""
    default = 2 * section.max_batch_size if section.use_gpu else _ON_CPU
    return section.max_encoder_requests or default


def encoder_requests(section: ServeConfig) -> int:
    """Requests for all encoder replicas, of which there are as many as may be."""
    return requests_per_encoder(section) * (section.max_encoder_replicas or section.encoder_replicas)


class Places:
    """Counts the requests that are worked on, up to `limit`; `what` is their name in an error."""

    def __init__(self, what: str, limit: int) -> None:
        self._what, self._limit = what, limit
        self._num_taken = 0

    def require_one(self) -> None:
        """Raises: ServiceUnavailable if none is left."""
        if self._num_taken >= self._limit:
            raise ServiceUnavailable(f"the service works on {self._limit} {self._what} already; try again")

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Take one while the block runs. Raises: ServiceUnavailable if none is left."""
        self.require_one()
        self._num_taken += 1
        try:
            yield
        finally:
            self._num_taken -= 1


@dataclass(frozen=True)
class Limits:
    """What a gateway works on at a time."""

    requests: Places
    item_queries: Places
    encoder_requests: Places
    """With a body that has arrived: a slow sender takes none."""
    changes: Places
    """That are written: while the database hangs, the other half of the requests stays for queries."""

    @classmethod
    def of(cls, section: ServeConfig) -> Limits:
        """Those of a gateway replica. Several gateways share the encoders; HAProxy counts for all of them."""
        return cls(
            Places("requests", section.max_requests),
            Places("queries by item", section.max_item_queries),
            Places("photos and texts", encoder_requests(section)),
            Places("changes", math.ceil(section.max_requests / 2)),
        )


class AdmissionMiddleware:
    """Runs a request if `limits` have a place for it; else it gets the response of `on_error`.

    Ray Serve has limits, too, but its proxies refuse in plain text, and in another one each.
    """

    def __init__(
        self, app: ASGIApp, limits: Callable[[], Limits], on_error: Callable[[RaysysError], Response]
    ) -> None:
        self._app, self._limits, self._on_error = app, limits, on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the routes, or refuse before a byte of the body is read."""
        if scope["type"] != "http" or scope["path"] in PROBES or scope["path"].startswith(ADMIN):
            await self._app(scope, receive, send)
            return
        limits = self._limits()
        with contextlib.ExitStack() as places:
            try:
                places.enter_context(limits.requests.taken())
                if scope["method"] == "GET" and scope["path"].endswith(ITEM_QUERY):
                    places.enter_context(limits.item_queries.taken())
                if _is_form(scope):  # a photo; its route takes the place once the photo is here
                    limits.encoder_requests.require_one()
            except ServiceUnavailable as error:
                await self._on_error(error)(scope, receive, send)
                return
            await self._app(scope, receive, send)


def _is_form(scope: Scope) -> bool:
    return Headers(scope=scope).get("content-type", "").lower().startswith(FORM)
