"""What the routes of a gateway share: settings, limits, encoder, index, and which pair of both is served."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ray import serve

from raysys.artifacts.served import ServedPair
from raysys.config.schema import ServeConfig
from raysys.errors import GenerationGone
from raysys.serve.admission import Limits
from raysys.serve.index_service import IndexInfo
from raysys.serve.item_writer import ItemWriter
from raysys.serve.query_vectors import QueryVectors
from raysys.serve.tokens import Access
from raysys.serve.versions import VersionsWatch

T = TypeVar("T")


@dataclass(frozen=True)
class GatewayState:
    """The state of a replica of the gateway."""

    section: ServeConfig
    access: Access
    limits: Limits
    vectors: QueryVectors
    index: Any
    """An `IndexService`, or what calls those of other deployments."""
    writer: ItemWriter | None
    """None if there is no database for changes."""
    coordinator: Any
    versions: VersionsWatch

    async def with_active(self, call: Callable[[ServedPair], Awaitable[T]]) -> T:
        """Call with the active pair, which is then used for all of the request.

        A switch may have come in between: then once more, with the pair that is active now.
        """
        try:
            return await call(self.versions.known.active)
        except GenerationGone:
            return await call((await self.versions.read_again()).active)

    async def index_info(self, pair: ServedPair) -> IndexInfo:
        """The index of a pair."""
        info: IndexInfo = await self.index.info(pair.generation)
        return info

    def encoder_place(self, *, is_needed: bool) -> contextlib.AbstractContextManager[None]:
        """Room for a request with photos or texts, if it has any. Raises: ServiceUnavailable."""
        return self.limits.encoder_requests.taken() if is_needed else contextlib.nullcontext()


def gateway_state() -> GatewayState:
    """The state of the replica that runs this request. No FastAPI dependency: each one takes about 50 us."""
    replica: Any = serve.get_replica_context().servable_object
    state: GatewayState = replica.state
    return state
