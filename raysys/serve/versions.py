"""Which pairs of encoder and index a service has: resolved at its start, and known to every gateway."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from raysys.artifacts import specs
from raysys.artifacts.layout import ArtifactLayout
from raysys.artifacts.served import (
    ServedPair,
    is_available,
    newest_pair,
    published_pair,
    read_served,
)
from raysys.config import Config
from raysys.tracking.logs import log

_RETRY_S = 1.0


@dataclass(frozen=True)
class Versions:
    """The pairs of a service at one moment."""

    active: ServedPair
    previous: ServedPair | None = None
    """The pair before the last switch, for a rollback."""
    loaded: tuple[ServedPair, ...] = ()
    """Pairs beside the active one that replicas have loaded: new items get a vector in their spaces, too."""

    @classmethod
    def read(cls, served_uri: str, initial: ServedPair) -> Versions:
        """Those of the file, or `initial` if that is newer. Raises: DamagedData."""
        served = read_served(served_uri)
        if served is None or newest_pair(served_uri, initial) != served.active:
            return cls(initial)
        return cls(served.active, served.previous, (served.previous,) if served.previous else ())


class VersionsWatch:
    """The versions as a gateway knows them: those of the file, then what the coordinator reports.

    A gateway needs no coordinator to answer requests.
    """

    def __init__(self, coordinator: Any, served_uri: str, initial: ServedPair) -> None:
        self._coordinator, self._served_uri, self._initial = coordinator, served_uri, initial
        self._known = Versions.read(served_uri, initial)
        self._task: asyncio.Task[None] | None = None

    @property
    def known(self) -> Versions:
        """The versions, at most milliseconds old. Call it in an event loop."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow())
        return self._known

    async def read_again(self) -> Versions:
        """The versions of the file, which is written before anybody hears of a switch."""
        versions = await asyncio.to_thread(Versions.read, self._served_uri, self._initial)
        if versions.active.generation > self._known.active.generation:
            self._known = versions
        return self._known

    async def asked(self) -> Versions:
        """The versions as the coordinator has them now; the known ones while there is no coordinator."""
        try:
            self._accept(await self._coordinator.versions.remote())
        except Exception as error:  # of Ray: it has no common class for a deployment that is not there
            log.warning(
                "serve: the coordinator does not answer (%s); no switch is going on", type(error).__name__
            )
        return self._known

    async def _follow(self) -> None:
        while True:
            try:
                self._accept(await self._coordinator.watch.remote(self._known))
            except Exception:  # it is started again meanwhile
                await asyncio.sleep(_RETRY_S)

    def _accept(self, versions: Versions) -> None:
        if versions.active.generation >= self._known.active.generation:
            self._known = versions


def served_uri(config: Config) -> str:
    """The file that says what is served."""
    layout = ArtifactLayout(config.root, config.name)
    return layout.served(config.index.embeddings or config.name)


def published(config: Config, generation: int) -> ServedPair:
    """The pair that is published now. Raises: as `published_pair`."""
    return published_pair(specs.served_encoder(config), specs.served_index(config), generation)


def pair_to_start_with(config: Config) -> ServedPair:
    """What a service that starts serves: the active pair of the file after a switch, else what is published.

    Raises: as `published_pair`, if that is served.
    """
    served = read_served(uri := served_uri(config))
    if served is not None and served.previous is not None:
        if is_available(served.active):
            log.info("    serve  index %s, as of the last switch (%s)", served.active.index_version, uri)
            return served.active
        log.warning(
            "serve: index %s of the last switch is gone; serving what is published",
            served.active.index_version,
        )
    pair = published(config, 1 if served is None else served.active.generation)
    if served is not None and not pair.is_same_as(served.active):
        return pair.model_copy(update={"generation": served.active.generation + 1})
    return pair
