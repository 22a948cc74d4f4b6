"""Replaces the pair of encoder and index that is served by another one, without an interruption.

Every replica loads the new pair beside the old one, which serves meanwhile. The new pair is checked. Then the
file of `raysys/artifacts/served.py` is written, and sent to the gateways: each request uses one pair for all
that it does. The old pair stays loaded for a rollback.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple

from ray import serve

from raysys.artifacts import IndexBundleManifest, open_artifact
from raysys.artifacts.served import Served, ServedPair, write_served
from raysys.config import Config
from raysys.errors import (
    REASON_LENGTH,
    Busy,
    InputError,
    MissingError,
    RaysysError,
    SwitchRefused,
    known_cause,
)
from raysys.serve.checks import GoldenItem, check_golden, golden_tolerance
from raysys.serve.encoder_deployment import EncoderInfo
from raysys.serve.follower import FollowerConfig
from raysys.serve.item_vectors import MissingVectors, embed_photo
from raysys.serve.versions import Versions, published, served_uri
from raysys.terminal import printable
from raysys.tracking.logs import log

_WATCH_S = 60.0


class Switch(NamedTuple):
    """What a switch has done; both pairs are equal if there was nothing new."""

    before: ServedPair
    after: ServedPair


@serve.deployment(name="Coordinator")
class Coordinator:
    """The one that decides what is served.

    `encoder` is None if the service started without one. `search` are the deployments of the partitions of
    the index; none if the gateways open it themselves.
    """

    def __init__(
        self,
        config: Config,
        initial: ServedPair,
        encoder: Any,
        search: Sequence[Any],
        changes: FollowerConfig | None,
    ) -> None:
        self._config, self._encoder, self._changes = config, encoder, changes
        self._search = search
        self._served_uri = served_uri(config)
        self._versions = Versions.read(self._served_uri, initial)
        self._changed = asyncio.Event()
        self._switching = asyncio.Lock()
        if self._versions == Versions(initial):
            self._write_initial(initial)

    async def versions(self) -> Versions:
        """The pairs of the service."""
        return self._versions

    async def watch(self, known: Versions) -> Versions:
        """The pairs as soon as they are not the `known` ones, at the latest after a minute."""
        if self._versions == known:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _WATCH_S)
        return self._versions

    async def switch(self) -> Switch:
        """Serve what is published now. Raises: SwitchRefused, then the active pair serves on; Busy."""
        return await self._alone(self._switch())

    async def rollback(self) -> Switch:
        """Serve the pair before the last switch again. Raises: MissingError without one; as `switch`."""
        return await self._alone(self._rollback())

    async def _alone(self, work: Coroutine[Any, Any, Switch]) -> Switch:
        """Finish the work also if its caller goes away. Raises: Busy if there is such work."""
        if self._switching.locked():
            work.close()
            raise Busy("another switch is going on; wait for its end, and see GET /v1/admin/versions")

        async def run() -> Switch:
            async with self._switching:
                return await work

        return await asyncio.shield(asyncio.create_task(run()))

    async def _switch(self) -> Switch:
        before = self._versions.active
        try:
            pair = await asyncio.to_thread(published, self._config, before.generation + 1)
        except RaysysError as error:
            raise _refused(error, before) from error
        if pair.is_same_as(before):
            return Switch(before, before)
        self._set(dataclasses.replace(self._versions, loaded=()))
        await self._keep(before)  # a replica has memory for two pairs
        await self._replace(pair, is_new=True)
        return Switch(before, pair)

    async def _rollback(self) -> Switch:
        before, previous = self._versions.active, self._versions.previous
        if previous is None:
            raise MissingError("no pair was served before the active one; there is nothing to go back to")
        pair = previous.model_copy(update={"generation": before.generation + 1})
        await self._replace(pair, is_new=False)
        return Switch(before, pair)

    async def _replace(self, pair: ServedPair, *, is_new: bool) -> None:
        old = self._versions
        try:
            await self._prepare(pair, is_new=is_new)
            served = Served(active=pair, previous=old.active)
            await asyncio.to_thread(write_served, self._served_uri, served)
        except Exception as error:  # whatever is wrong with the new pair must not reach a request
            self._set(old)
            await self._keep(old.active, *old.loaded)
            raise _refused(error, old.active) from error
        self._set(Versions(pair, old.active, (old.active,)))
        await self._keep(pair, old.active)
        log.info(
            "    serve  index %s in place of %s (generation %d)",
            pair.index_version,
            old.active.index_version,
            pair.generation,
        )

    async def _prepare(self, pair: ServedPair, *, is_new: bool) -> None:
        """Load a pair in every replica, and check it if it was never served."""
        if pair.encoder_uri is not None:
            if self._encoder is None:
                raise InputError("the service has started without an encoder; start it again to serve one")
            await self._encoder.broadcast("load", pair).results_async()
        # From here on, new items get a vector in this space. Those that were put before are embedded first,
        # so that the index is complete when it is loaded; a vector that comes later is found a second later.
        self._set(dataclasses.replace(self._versions, loaded=(*self._versions.loaded, pair)))
        await self._embed_missing(pair)
        searchers = self._searchers()
        await asyncio.gather(*(each.broadcast("load", pair).results_async() for each in searchers))
        if is_new:
            await self._check(pair)
        await self._embed_missing(pair)

    async def _embed_missing(self, pair: ServedPair) -> None:
        if self._changes is None or pair.encoder_uri is None:
            return
        num_left = await MissingVectors(self._changes, self._encoder, pair).embed()
        if num_left:
            log.warning(
                "serve: %d changed items have no photo to embed for index %s, and are not found in it",
                num_left,
                pair.index_version,
            )

    async def _check(self, pair: ServedPair) -> None:
        """Raises: DamagedData, ParityFailed."""
        checked = await asyncio.gather(*(each.check.remote(pair.generation) for each in self._searchers()))
        golden: list[GoldenItem] = [*itertools.chain.from_iterable(checked)]
        if pair.encoder_uri is None:
            return
        if not golden:
            log.warning(
                "serve: no item of index %s has a photo: its encoder is not compared", pair.index_version
            )
        info: EncoderInfo = await self._encoder.info.remote(pair.generation)
        vectors = [await embed_photo(self._encoder, pair, info, item.photo) for item in golden]
        index = await asyncio.to_thread(open_artifact, pair.index_uri, IndexBundleManifest)
        tolerance = golden_tolerance(index.factory, self._config.embed.parity_tolerance)
        check_golden(golden, vectors, tolerance)

    async def _keep(self, *pairs: ServedPair) -> None:
        """Let the replicas drop all other pairs. One that does not answer drops them at the next switch."""
        generations = [pair.generation for pair in pairs]
        for deployment in (self._encoder, *self._searchers()):
            try:
                if deployment is not None:
                    await deployment.broadcast("keep", generations).results_async()
            except Exception as error:  # of Ray, such as a replica that was killed
                log.warning("serve: a replica may hold an old pair: %s", printable(error, REASON_LENGTH))

    def _searchers(self) -> Sequence[Any]:
        """The handles of the deployments that have the index."""
        if not self._search:  # the gateways have a handle of this deployment, so it cannot be given theirs
            self._search = [serve.get_deployment_handle("Gateway", serve.get_replica_context().app_name)]
        return self._search

    def _set(self, versions: Versions) -> None:
        self._versions = versions
        self._changed.set()
        self._changed = asyncio.Event()

    def _write_initial(self, initial: ServedPair) -> None:
        try:
            write_served(self._served_uri, Served(active=initial))
        except RaysysError as error:
            log.warning("serve: publishers do not know what is served: %s", error)


def _refused(error: Exception, active: ServedPair) -> SwitchRefused:
    cause = known_cause(error)
    reason = str(cause) if cause is not None else f"unexpected {type(error).__name__}: {error}"
    return SwitchRefused(
        f"the new pair is refused: {printable(reason, 2 * REASON_LENGTH)}; "
        f"index {active.index_version} serves on"
    )
