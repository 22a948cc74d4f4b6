"""The routes of the gateway over a real index of a few items, without Ray: its handles call plain objects."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, IndexBundleManifest
from raysys.artifacts.served import ServedPair
from raysys.columns import content_hash, embedding_schema
from raysys.config.schema import IndexConfig, ServeConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.errors import MissingError
from raysys.index.build import publish_index
from raysys.store.change_log import ChangeLog
from raysys.store.changes import Change
from tests.factories import photo

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic, by the import of Ray Serve
    from ray import serve

    from raysys.serve import follower, gateway, item_writer
    from raysys.serve.coordinator import Switch
    from raysys.serve.encoder_deployment import EncoderInfo
    from raysys.serve.follower import FollowerConfig
    from raysys.serve.index_service import IndexService, IndexSettings
    from raysys.serve.item_writer import ItemWriterConfig
    from raysys.serve.tokens import Access
    from raysys.serve.versions import Versions

OPEN = Access(anonymous="admin")  # as on a loopback address
SPACE_ID = "5" * 64
DIMENSIONS = 4
# Every id can be in a catalogue, so every one must be reachable over HTTP.
ITEM_IDS = [
    "m1", "a/b", "/a", "a/", "a//b", "a/similar", "a/photo", "a#b", "a?b=c", "100%", "%2F", "%2e%2e", "a b", " a",
    "a+b", "a&b", "\"a'", "<b>", "a\\b", "a:b", "a;b=c", "シャツ/赤", "👗", "é", "e\u0301", ".", "..", "...", "../..",
    "./a", "a/../b", "a\nb", "a\n/b", "/\n", "\n", "a/\r\n/b", "a/b\n", "\ta/\tb", "\u2028/\x85", "\x0b/\0", "/similar\n/photo",
    "\u202eab", "0", "null", "x" * 300, "あ" * 300,
]  # fmt: skip


class Handle:
    """A deployment handle that calls the methods of objects in this process, in turn."""

    def __init__(self, *replicas: object) -> None:
        self._replicas = replicas
        self._turns = itertools.cycle(replicas)

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: getattr(next(self._turns), name)(*arguments))

    def broadcast(self, name: str, *arguments: object) -> Any:
        async def results() -> list[Any]:
            return await asyncio.gather(*(getattr(replica, name)(*arguments) for replica in self._replicas))

        return SimpleNamespace(results_async=results)


class IdleCoordinator:
    """A coordinator of a service that is never switched."""

    def __init__(self, active: ServedPair) -> None:
        self._versions = Versions(active)

    async def versions(self) -> Versions:
        return self._versions

    async def watch(self, known: Versions) -> Versions:
        await asyncio.Event().wait()
        return known

    async def switch(self) -> Switch:
        return Switch(self._versions.active, self._versions.active)

    async def rollback(self) -> Switch:
        raise MissingError("no pair was served before the active one; there is nothing to go back to")


class LocalLog:
    """As an AppendProcess, without another process."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._log = ChangeLog(url, timeout_s)

    async def append(self, changes: Sequence[Change]) -> list[int]:
        return self._log.append(changes)


@pytest.fixture(autouse=True)
def _without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_writer, "AppendProcess", LocalLog)
    monkeypatch.setattr(follower, "LogReader", ChangeLog)


class HashEncoder:
    """An encoder whose vectors depend on the bytes of the input only; `vector` replaces them."""

    vector: np.ndarray | None = None

    async def info(self, generation: int) -> EncoderInfo:
        return EncoderInfo(SPACE_ID, DIMENSIONS, ImagePreprocessing(16, (0.5,) * 3, (0.5,) * 3))

    async def embed_pixels(
        self, generation: int, photos: list[np.ndarray], deadlines: list[float]
    ) -> list[np.ndarray]:
        return [self._vector(photo.tobytes()) for photo in photos]

    async def embed_titles(
        self, generation: int, titles: list[str], deadlines: list[float]
    ) -> list[np.ndarray]:
        return [self._vector(title.encode()) for title in titles]

    def _vector(self, data: bytes) -> np.ndarray:
        if self.vector is not None:
            return self.vector
        seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
        vector = np.random.default_rng(seed).normal(size=DIMENSIONS)
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


@dataclass
class Service:
    """A client of the gateway, and the encoder and the index behind it."""

    encoder: HashEncoder
    search: Any

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> httpx.Response:
        return self.request("POST", url, **options)

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with client_of_gateway() as client:
                return await client.request(method, url, **options)

        return asyncio.run(send())


def client_of_gateway() -> httpx.AsyncClient:
    """A client of the gateway that `serve_with` started last."""
    transport = httpx.ASGITransport(gateway.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture(scope="session")
def index_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_index(tmp_path_factory.mktemp("index"))


@pytest.fixture
def serve_with(
    index_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Service]]:
    """Start the gateway with these settings of `serve`, with or without an encoder and a log of changes."""
    searchers: list[Any] = []

    def start(
        *,
        has_encoder: bool = True,
        encoder: HashEncoder | None = None,
        access: Access = OPEN,
        search: Any = None,
        has_store: bool = False,
        root: Path = tmp_path,
        **settings: Any,
    ) -> Service:
        encoder = encoder or HashEncoder()
        pair = ServedPair(
            generation=1,
            encoder_uri="encoder" if has_encoder else None,
            index_uri=index_uri,
            space_id=SPACE_ID,
            index_version="v",
        )
        served_uri = str(root / "served" / "shop.json")
        follower = FollowerConfig(url=f"sqlite:///{root}/store.db", timeout_s=5.0, poll_s=0.01)
        section = ServeConfig(**settings)
        settings_of_index = IndexSettings(
            follower if has_store else None,
            section.search_threads,
            section.queue_length,
            degraded_effort=section.degraded_search_effort,
        )
        if search is None:
            search = IndexService(pair, served_uri, settings_of_index)
            searchers.append(search)
        gateway_class = class_of(gateway.Gateway).__mro__[1]  # without the wrapper of `serve.ingress`
        writer = ItemWriterConfig(follower["url"], 5.0, str(root)) if has_store else None
        routes = gateway_class(
            section.model_dump(mode="json"),
            access,
            Handle(encoder) if has_encoder else None,
            [Handle(search)],
            settings_of_index,
            writer,
            Handle(IdleCoordinator(pair)),
            served_uri,
            pair,
        )
        monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(servable_object=routes))
        return Service(encoder, search)

    yield start
    for search in searchers:
        asyncio.run(search.keep([]))


@pytest.fixture
def service(serve_with: Callable[..., Service]) -> Service:
    return serve_with()


def class_of(deployment: Any) -> Any:
    return deployment.func_or_class


def write_index(folder: Path) -> str:
    """An index of `ITEM_IDS` with random vectors."""
    vectors = np.random.default_rng(0).normal(size=(len(ITEM_IDS), DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    spec = ArtifactSpec(str(folder / "index"), IndexBundleManifest, {}, {})
    publish_index(spec, write_embeddings(folder, vectors, SPACE_ID), IndexConfig(kind="exact"))
    return spec.uri


def photos() -> list[bytes]:
    """The photos of `ITEM_IDS`."""
    return [photo((5 * row, 0, 0)) for row in range(len(ITEM_IDS))]


def write_embeddings(folder: Path, vectors: np.ndarray, space_id: str) -> str:
    """The vectors of `ITEM_IDS` with photos in one shard; the category of every second item is `bags`."""
    encoded = photos()
    shard = folder / "00000.tar"
    shard.write_bytes(b"".join(encoded))
    offsets = np.cumsum([0, *map(len, encoded)])
    rows = [
        {
            "item_id": item_id,
            "title": f"title of {item_id}",
            "attributes": json.dumps({"category": ["shoes", "bags"][row % 2], "price": row}),
            "group": "a" if item_id in ("a/b", "/a") else "",
            "split": "test",
            "shard": str(shard),
            "image_offset": int(offsets[row]),
            "image_bytes": len(encoded[row]),
            "content_hash": content_hash(encoded[row], f"title of {item_id}"),
            "embedding": vectors[row].tolist(),
        }
        for row, item_id in enumerate(ITEM_IDS)
    ]
    embeddings = ArtifactSpec(str(folder / "embeddings"), EmbeddingSetManifest, {}, {})
    artifacts.begin(embeddings)
    table = pa.Table.from_pylist(rows, schema=embedding_schema(vectors.shape[1]))
    pq.write_table(table, Path(embeddings.uri, "part.parquet"))
    fields = artifacts.common_fields(embeddings, artifacts.describe_files(embeddings.uri), len(rows), 0.0)
    artifacts.publish(
        embeddings.uri,
        EmbeddingSetManifest(**fields, space_id=space_id, dimensions=vectors.shape[1]),
    )
    return embeddings.uri
