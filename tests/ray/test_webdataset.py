"""A WebDataset is indexed on a cluster and on an object store as it is in one process on a local disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysys import storage
from raysys.config.schema import SPLITS, GroupSplit, PackConfig
from raysys.errors import StorageError
from raysys.pack.ray_executor import RayExecutor
from raysys.pack.webdataset.build import index_shard_sets
from raysys.shards.reader import Item, open_shard, shards_of
from tests.img2dataset_tars import write_img2dataset
from tests.s3 import FaultyProxy, faulty_proxy, free_port, make_bucket
from tests.unit.pack.small_webdataset import (
    configure,
    downloads,
    index,
    open_with_specs,
    read_items,
    read_ledger,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
SECTION = PackConfig(split=GroupSplit(val_fraction=0.3, test_fraction=0.3), max_bad_fraction=0.5)


@pytest.fixture
def tars(tmp_path: Path) -> list[Path]:
    """Twenty tars with two items each: more than one task indexes."""
    return write_img2dataset(tmp_path / "tars", *(downloads(2, first=2 * shard) for shard in range(20)))


@pytest.fixture
def proxy(s3_server: int, s3_port: int) -> Iterator[FaultyProxy]:
    """A proxy that injects a fault into every fourth request."""
    with faulty_proxy(s3_server, port=s3_port, every=4) as proxy:
        yield proxy


@pytest.mark.usefixtures("ray_cluster")
def test_cluster_gives_the_same_shard_sets(tars: list[Path], tmp_path: Path) -> None:
    alone = index(configure(tars[0].parent, tmp_path / "alone", SECTION))
    config = configure(tars[0].parent, tmp_path / "cluster", SECTION)
    catalog, by_split = open_with_specs(config)
    on_cluster = index_shard_sets(catalog, config.pack, by_split, RayExecutor())
    assert {split: on_cluster[split].fingerprint for split in SPLITS} == {
        split: alone[split].fingerprint for split in SPLITS
    }
    assert sum(manifest.num_items for manifest in on_cluster.values()) == 40


def test_tars_in_a_bucket_are_read_where_they_are(
    tars: list[Path], s3_server: int, proxy: FaultyProxy, tmp_path: Path
) -> None:
    make_bucket(s3_server, "laion")
    for tar in tars[:3]:
        storage.write_bytes(f"s3://laion/tars/{tar.name}", tar.read_bytes())
    config = configure("s3://laion/tars/{00000..00003}.tar", tmp_path, SECTION)
    config = config.model_copy(update={"root": "s3://laion/root"})
    manifests = index(config)
    assert sum(manifest.num_items for manifest in manifests.values()) == 6
    assert read_ledger(config) == [("", "absent_shard")]
    local = configure(f"{tars[0].parent}/{{00000..00002}}.tar", tmp_path / "root", SECTION)
    index(local)
    for split in SPLITS:
        items = read_items(config, split)
        assert items == read_items(local, split)
        for shard in shards_of(f"s3://laion/root/shards/{split}"):
            with open_shard(dataclasses.replace(shard, num_bytes=10**9)) as ranged:
                read = [ranged.read(number) for number in range(shard.num_items)]
            assert all(isinstance(item, Item) and item in items for item in read)
        for item in items:
            uri = f"s3://laion/tars/{item.item_id[:5]}.tar"
            assert storage.read_range(uri, item.image_offset, len(item.image)) == item.image
    assert not [name for name in storage.list_files("s3://laion/root") if name.endswith(".tar")]
    assert sum(proxy.injected.values()) > 5


def test_store_that_refuses_connections_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("raysys.storage.retry.pause", lambda seconds: None)
    config = configure("s3://gone/{00..99}.tar", tmp_path)
    with pytest.raises(StorageError, match="^s3://gone/[^\n]*$"):
        index(config)
