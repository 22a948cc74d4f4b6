"""The HTTP gateway: the FastAPI application of the routes, and the deployment that runs it.

Serve pickles the class when it is decorated: what it uses must be defined above it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from fastapi import Depends, FastAPI
from ray import serve

from raysys.artifacts.served import ServedPair
from raysys.config.schema import ServeConfig
from raysys.serve.access_log import start_access_log
from raysys.serve.admission import AdmissionMiddleware, Limits
from raysys.serve.checks import GoldenItem
from raysys.serve.deadline import DeadlineMiddleware
from raysys.serve.error_responses import add_error_handlers, response_to, response_to_unexpected
from raysys.serve.gateway_scaling import BUSY, BusyTime
from raysys.serve.gateway_state import GatewayState, gateway_state
from raysys.serve.index_service import IndexService, IndexSettings
from raysys.serve.item_writer import ItemWriter, ItemWriterConfig
from raysys.serve.middleware import ServiceMiddleware
from raysys.serve.partitioned_index import PartitionedIndex
from raysys.serve.query_vectors import QueryVectors
from raysys.serve.routes import admin, changes, items, page, probes, queries
from raysys.serve.scopes import authorize
from raysys.serve.search_deployment import RemoteIndex
from raysys.serve.tokens import Access
from raysys.serve.versions import VersionsWatch
from raysys.version import __version__


def _settings() -> ServeConfig:
    return gateway_state().section


def _limits() -> Limits:
    return gateway_state().limits


app = FastAPI(
    title="raysys",
    version=__version__,
    summary="Similar looks for a marketplace",
    dependencies=[Depends(authorize)],
    docs_url=None,  # these pages load scripts of another site
    redoc_url=None,
    openapi_url=None,  # `routes/page.py` has it, with the headers and errors of every route
)
app.add_middleware(DeadlineMiddleware, settings=_settings, on_error=response_to)
app.add_middleware(AdmissionMiddleware, limits=_limits, on_error=response_to)
app.add_middleware(ServiceMiddleware, settings=_settings, on_error=response_to_unexpected)
add_error_handlers(app)
# Routes are matched in this order: most requests are queries.
app.include_router(queries.router)
app.include_router(items.router)
app.include_router(changes.router)
app.include_router(page.router)
app.include_router(probes.router)
app.include_router(admin.router)


def _index(search: Sequence[Any], initial: ServedPair, served_uri: str, settings: IndexSettings) -> Any:
    """An `IndexService`, or what calls those of other deployments."""
    if not search:
        return IndexService(initial, served_uri, settings)
    return RemoteIndex(search[0]) if len(search) == 1 else PartitionedIndex(search)


@serve.deployment(name="Gateway")
@serve.ingress(app)
class Gateway:
    """A replica of the gateway: its state, and what Ray Serve and the coordinator call.

    Without `encoder`, photos and texts are refused. `search` are the deployments of the partitions of the
    index. Without them, the gateway opens the index itself.
    """

    def __init__(
        self,
        section: dict[str, Any],
        access: Access,
        encoder: Any,
        search: Sequence[Any],
        index: IndexSettings,
        writer: ItemWriterConfig | None,
        coordinator: Any,
        served_uri: str,
        initial: ServedPair,
    ) -> None:
        config = ServeConfig.model_validate(section)
        if config.access_log == "json":
            start_access_log()
        self.state = GatewayState(
            section=config,
            access=access,
            limits=Limits.of(config),
            vectors=QueryVectors(encoder, config),
            index=_index(search, initial, served_uri, index),
            writer=None if writer is None else ItemWriter(writer),
            coordinator=coordinator,
            versions=VersionsWatch(coordinator, served_uri, initial),
        )
        self._busy_time = BusyTime(min(config.decode_threads, config.search_threads))

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For `gateway_scaling.num_gateways`; Ray Serve calls it by this name."""
        return {BUSY: self._busy_time.share()}

    async def load(self, pair: ServedPair) -> None:
        """As `IndexService.load`."""
        await self.state.index.load(pair)

    async def keep(self, generations: Collection[int]) -> None:
        """As `IndexService.keep`."""
        await self.state.index.keep(generations)

    async def check(self, generation: int) -> list[GoldenItem]:
        """As `IndexService.check`."""
        golden: list[GoldenItem] = await self.state.index.check(generation)
        return golden
