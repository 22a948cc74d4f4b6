"""A service of real indexes and encoders whose handles call plain objects: it can be switched without Ray."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from ray import serve

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EncoderBundleManifest, IndexBundleManifest
from raysys.artifacts.served import ServedPair
from raysys.config import Config
from raysys.config.schema import IndexConfig
from raysys.encoder.bundle import open_bundle
from raysys.encoder.siglip import SiglipEncoder
from raysys.index.build import publish_index
from raysys.index.changes import ChangeSource
from raysys.index.partition import Partition
from raysys.serve import gateway
from raysys.serve.coordinator import Coordinator
from raysys.serve.encoder_deployment import EncoderInfo
from raysys.serve.follower import FollowerConfig
from raysys.serve.generations import Generations
from raysys.serve.index_service import IndexService, IndexSettings
from raysys.serve.item_writer import ItemWriterConfig
from raysys.serve.versions import pair_to_start_with, served_uri
from raysys.store.change_log import ChangeLog
from tests.factories import tiny_bundle
from tests.unit.serve.conftest import OPEN, Handle, class_of, photos, write_embeddings

WAIT_S = 10.0


_LOADING = threading.Lock()


def _open_alone(uri: str) -> SiglipEncoder:
    """transformers cannot load two models at once in one process; real replicas are processes."""
    with _LOADING:
        return open_bundle(uri)


class BundleEncoder:
    """A replica of the encoder, without batches. It loads nothing while `may_load` is not set."""

    def __init__(self, initial: ServedPair, place: str) -> None:
        self.after_next_photo: Callable[[], Awaitable[object]] | None = None
        self.may_load = asyncio.Event()
        self.may_load.set()
        self._generations = Generations(
            place, initial, uri_of=lambda pair: pair.encoder_uri, open_version=_open_alone
        )
        self._generations.start()

    async def load(self, pair: ServedPair) -> None:
        await self.may_load.wait()
        await asyncio.to_thread(self._generations.load, pair)

    async def keep(self, generations: list[int]) -> None:
        self._generations.keep(generations)

    async def info(self, generation: int) -> EncoderInfo:
        encoder = await self._generations.get(generation)
        return EncoderInfo(encoder.space_id, encoder.dimensions, encoder.image)

    async def embed_pixels(self, generation: int, photos: Any, deadlines: Any) -> Any:
        encoder = await self._generations.get(generation)
        vectors = encoder.embed_pixels(np.stack(photos))
        if self.after_next_photo is not None:
            await self.after_next_photo()
        return [*vectors]

    async def embed_titles(self, generation: int, titles: Any, deadlines: Any) -> Any:
        return [*(await self._generations.get(generation)).embed_titles(titles)]


class Shop:
    """A root with artifacts; `serving` runs its service."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, num_files: int = 1) -> None:
        self.root, self._monkeypatch, self.num_files = root, monkeypatch, num_files
        self.config = Config.model_validate(
            {"name": "shop", "root": str(root), "projection": {"dimensions": None}}
        )
        self.place = served_uri(self.config)
        self.changes = FollowerConfig(url=f"sqlite:///{root}/store.db", timeout_s=5.0, poll_s=0.01)

    def publish(self, seed: int, *, with_changes: bool = False) -> str:
        """Publish an encoder with these random weights, and the index of its vectors; the space id."""
        uri = tiny_bundle(self.root / "encoders" / "shop", ["a cup", "a hat"], seed=seed)
        return self.publish_index(uri, with_changes=with_changes)

    def publish_index(
        self, encoder_uri: str, *, claimed: str | None = None, with_changes: bool = False
    ) -> str:
        """Publish the index of an encoder's vectors, for the space `claimed` if that is another one."""
        vectors = open_bundle(encoder_uri).embed_photos(photos())
        space_id = claimed or artifacts.open_artifact(encoder_uri, EncoderBundleManifest).space_id
        changes = None
        if with_changes:
            log = ChangeLog(self.changes["url"])
            changes = ChangeSource(self.changes["url"], 5.0, log.last())
            log.close()
        spec = ArtifactSpec(str(self.root / "indexes" / "shop"), IndexBundleManifest, {}, {})
        embeddings = write_embeddings(self.root, vectors, space_id)
        publish_index(spec, embeddings, IndexConfig(kind="exact", shards=self.num_files), changes=changes)
        return space_id

    @contextlib.asynccontextmanager
    async def serving(self, *, has_store: bool = False, num_partitions: int = 1) -> AsyncIterator[Client]:
        """The service with two encoders, a gateway, and two searchers of each partition.

        Without partitions the gateway searches itself.
        """
        pair = pair_to_start_with(self.config)
        changes = self.changes if has_store else None
        settings = IndexSettings(changes, 4, 256)
        encoders = [BundleEncoder(pair, self.place) for _ in "ab"]
        partitions = [Partition(number, num_partitions) for number in range(num_partitions)]
        searchers = [
            [IndexService(pair, self.place, settings._replace(partition=partition)) for _ in "ab"]
            for partition in partitions
        ]
        search = [*itertools.chain.from_iterable(searchers)]
        handles = Handle(*encoders), [Handle(*replicas) for replicas in searchers]
        coordinator = class_of(Coordinator)(self.config, pair, *handles, changes)
        writer = ItemWriterConfig(self.changes["url"], 5.0, str(self.root)) if has_store else None
        gateway_class = class_of(gateway.Gateway).__mro__[1]  # without the wrapper of `serve.ingress`
        section = self.config.serve.model_dump(mode="json")
        routes = gateway_class(
            section, OPEN, *handles, settings, writer, Handle(coordinator), self.place, pair
        )
        context = SimpleNamespace(servable_object=routes, app_name="raysys")
        self._monkeypatch.setattr(serve, "get_replica_context", lambda: context)
        gateways = {("Gateway", "raysys"): Handle(routes)}
        self._monkeypatch.setattr(serve, "get_deployment_handle", lambda *names: gateways[names])
        transport = httpx.ASGITransport(gateway.app, raise_app_exceptions=False)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                yield Client(http, coordinator, encoders, search or [routes])
        finally:
            for replica in search or [routes]:
                await replica.keep([])


class Client:
    """A client of the service, and the replicas behind it."""

    def __init__(
        self, http: httpx.AsyncClient, coordinator: Any, encoders: list[BundleEncoder], search: list[Any]
    ) -> None:
        self.http, self.coordinator, self.encoders, self.search = http, coordinator, encoders, search

    async def ok(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        """The body of a response, whose status must be 200."""
        response = await self.http.request(method, url, **options)
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def ready(self) -> dict[str, Any]:
        return await self.ok("GET", "/readyz")

    async def switch(self) -> dict[str, Any]:
        return await self.ok("POST", "/v1/admin/switch")

    async def rollback(self) -> dict[str, Any]:
        return await self.ok("POST", "/v1/admin/rollback")

    async def put(self, item_id: str, image: bytes) -> int:
        """Put an item with a photo; the number of the change."""
        body = {"title": "new", "image_base64": base64.b64encode(image).decode()}
        return int((await self.ok("PUT", f"/v1/items/{quote(item_id, safe='')}", json=body))["change"])

    async def ids_like(self, image: bytes, k: int = 3) -> list[str]:
        """The items nearest to a photo."""
        found = await self.ok("POST", "/v1/search", files={"image": image}, data={"k": str(k)})
        return [item["item_id"] for item in found["items"]]

    async def until_found(self, item_id: str, image: bytes) -> None:
        """Wait until both searchers find an item as the nearest one of its photo."""
        deadline = asyncio.get_running_loop().time() + WAIT_S
        for _ in self.search:
            while (await self.ids_like(image))[0] != item_id:
                assert asyncio.get_running_loop().time() < deadline, item_id
                await asyncio.sleep(0.02)
