"""An S3 server behind an unreliable network: files are read unchanged, and streams yield every item once."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from PIL import Image

from raysys import storage
from raysys.config.schema import StreamConfig
from raysys.errors import MissingError
from raysys.shards.reader import Item, ShardRef, read_shard
from raysys.storage import retry
from raysys.stream.concurrency import Concurrency
from raysys.stream.read import embedding_stream, training_stream
from tests.factories import write_shards
from tests.s3 import FAULTS, FaultyProxy, faulty_proxy, make_bucket

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
NUM_ITEMS = 50
SECTION, SMALLEST = StreamConfig(shuffle_window_shards=2), Concurrency(decoders=1, readers=1)


@pytest.fixture
def bucket(s3_server: int, request: pytest.FixtureRequest) -> str:
    """An empty bucket for this test."""
    name = "shop-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    make_bucket(s3_server, name)
    return name


@pytest.fixture
def proxy(s3_server: int, s3_port: int) -> Iterator[FaultyProxy]:
    """A proxy that injects a fault into every fourth request of any process."""
    with faulty_proxy(s3_server, port=s3_port, every=4) as proxy:
        yield proxy


@pytest.fixture
def without_client_retries(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the retries of the AWS client, so that only raysys retries."""
    once = pafs.AwsStandardS3RetryStrategy(max_attempts=1)
    filesystem = pafs.S3FileSystem(endpoint_override=proxy.url, region="us-east-1", retry_strategy=once)
    monkeypatch.setattr("raysys.storage.uri._store", lambda scheme, bucket, query: (filesystem, bucket))
    monkeypatch.setattr(retry, "pause", lambda seconds: None)


@pytest.mark.usefixtures("without_client_retries")
def test_files_are_read_unchanged_when_every_fourth_request_fails(proxy: FaultyProxy, bucket: str) -> None:
    root = f"s3://{bucket}/raysys"
    names = [f"below/my cup #{number}?%20é.bin" for number in range(12)]
    data = {name: random.Random(name).randbytes(50_000 + number) for number, name in enumerate(names)}
    for name, content in data.items():
        storage.write_bytes(storage.join(root, name), content)
    assert storage.list_files(root) == {name: len(data[name]) for name in sorted(names)}
    for name, content in data.items():
        uri = storage.join(root, name)
        assert storage.read_bytes(uri) == content
        assert storage.read_range(uri, 10_000, 30_000) == content[10_000:40_000]
        assert storage.sha256_of(uri) == (len(content), hashlib.sha256(content).hexdigest())
        with storage.open_input(uri) as stream:
            assert b"".join(iter(lambda: stream.read(20_000), b"")) == content
    assert [size for size, _ in storage.stat_files([f"{root}/{names[0]}", f"{root}/absent"])] == [50_000, -1]
    storage.delete(storage.join(root, "below"))
    assert storage.list_files(root) == {}
    assert all(proxy.injected[fault] > 5 for fault in FAULTS), proxy.injected


# 75 MB through a proxy in Python.
@pytest.mark.slow
@pytest.mark.usefixtures("without_client_retries")
def test_multipart_upload_is_complete_when_every_fourth_request_fails(
    proxy: FaultyProxy, bucket: str, tmp_path: Path
) -> None:
    content = random.Random(1).randbytes(25_000_000)  # more than two parts of pyarrow's 10 MB
    for name in ("a", "b"):
        with storage.writable_file(f"s3://{bucket}/{name}.bin") as draft:
            draft.write_bytes(content)
        assert storage.read_bytes(f"s3://{bucket}/{name}.bin") == content
    (tmp_path / "source" / "below").mkdir(parents=True)
    (tmp_path / "source" / "below" / "c").write_bytes(content[:100_000])
    storage.upload_folder(tmp_path / "source", f"s3://{bucket}/folder")
    with storage.readable_folder(f"s3://{bucket}/folder") as folder:
        assert (folder / "below" / "c").read_bytes() == content[:100_000]
    assert sum(proxy.injected.values()) > 5


def test_absent_files_and_buckets_are_missing_errors_despite_faults(proxy: FaultyProxy, bucket: str) -> None:
    for uri in (f"s3://{bucket}/absent", "s3://no-such-bucket/absent"):
        with pytest.raises(MissingError, match=f"^{uri}: no such (file|bucket); check the path$"):
            storage.read_bytes(uri)
        assert not storage.exists(uri)
        assert storage.list_files(uri) == {}
    with pytest.raises(MissingError, match="^s3://no-such-bucket/a: no such bucket; check the path$"):
        storage.write_bytes("s3://no-such-bucket/a", b"x")


def write_catalog(root: str, photo: str) -> list[ShardRef]:
    """Write fifty items in shards of 15, 15, 15 and 5."""
    data = storage.read_bytes(photo)
    items = [Item(f"i{number:02d}", f"cup {number}", data, {"seller": "anna"}) for number in range(NUM_ITEMS)]
    return write_shards(root, items, 15)


def make_decoder() -> Callable[[pa.Table], Any]:
    """A decoder that returns item id, position and hash of the photo; a local function, so Ray pickles it by value."""

    def decode(block: pa.Table) -> dict[str, np.ndarray]:
        photos = [hashlib.sha256(photo).hexdigest() for photo in block.column("image").to_pylist()]
        return {
            "position": block.column("stream_position").to_numpy(),
            "item_id": np.array(block.column("item_id").to_pylist()),
            "photo": np.array(photos),
        }

    return decode


# Slow, as is the complete pipeline over S3 in tests/e2e; `make test` covers files and folders on S3.
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_streams_over_s3_yield_every_item_once_with_the_bytes_of_local_shards(
    proxy: FaultyProxy, bucket: str, tmp_path: Path
) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg", quality=95)
    photo = (tmp_path / "photo.jpg").read_bytes()
    storage.write_bytes(f"s3://{bucket}/photo.jpg", photo)
    local = write_catalog(str(tmp_path), str(tmp_path / "photo.jpg"))
    remote = write_catalog(f"s3://{bucket}/shards", f"s3://{bucket}/photo.jpg")
    assert [shard.sha256 for shard in remote] == [shard.sha256 for shard in local]

    def rows_of(stream: Any) -> list[tuple[int, str, str]]:
        batches = stream.iter_batches(batch_size=None, batch_format="numpy")
        return [
            (int(position), str(item_id), str(digest))
            for batch in batches
            for position, item_id, digest in zip(
                batch["position"], batch["item_id"], batch["photo"], strict=True
            )
        ]

    embedded = rows_of(embedding_stream(remote, make_decoder(), SECTION, SMALLEST))
    assert [item_id for _, item_id, _ in embedded] == [
        item.item_id for shard in local for item in read_shard(shard)
    ]
    assert {digest for _, _, digest in embedded} == {hashlib.sha256(photo).hexdigest()}
    remote_rows, local_rows = (
        rows_of(
            training_stream(
                shards, make_decoder(), SECTION, SMALLEST, seed=7, start=0, stop=96, rows_per_block=8
            )
        )
        for shards in (remote, local)
    )
    assert [position for position, _, _ in remote_rows] == list(range(96))
    assert remote_rows == local_rows
    assert sum(proxy.injected.values()) > 10
