"""A small WebDataset of another tool, and the result of indexing it in this process."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, ShardSetManifest, specs
from raysys.config import Config
from raysys.config.schema import SPLITS, GroupSplit, PackConfig, WebDatasetCatalog, WebDatasetColumns
from raysys.pack.executor import SerialExecutor
from raysys.pack.webdataset.build import index_shard_sets
from raysys.pack.webdataset.listing import WebDataset, open_webdataset
from raysys.shards.reader import Item, read_shard, shards_of
from tests.img2dataset_tars import Download
from tests.unit.pack.small_catalogue import jpeg

ALL_TRAIN = GroupSplit(val_fraction=0.0, test_fraction=0.0)


def configure(path: Path | str, root: Path, section: PackConfig | None = None, **columns: Any) -> Config:
    """The configuration that indexes the tars at `path`; all items are in the train split by default."""
    return Config(
        root=str(root),
        catalog=WebDatasetCatalog(path=str(path), columns=WebDatasetColumns(**columns)),
        pack=section or PackConfig(split=ALL_TRAIN, max_bad_fraction=1.0),
    )


def open_with_specs(config: Config) -> tuple[WebDataset, dict[str, ArtifactSpec]]:
    """The listed tars, and the spec of each split's ShardSet."""
    section = config.catalog
    assert isinstance(section, WebDatasetCatalog)
    catalog = open_webdataset(section, config.pack)
    by_split: dict[str, ArtifactSpec] = {
        split: specs.indexed_shard_set(config, split, section.columns, catalog.entry) for split in SPLITS
    }
    return catalog, by_split


def index(config: Config) -> dict[str, ShardSetManifest]:
    """Index the tars. Returns the manifest of each split."""
    catalog, by_split = open_with_specs(config)
    return index_shard_sets(catalog, config.pack, by_split, SerialExecutor())


def read_items(config: Config, split: str = "train") -> list[Item]:
    """The items of a split as training and evaluation read them."""
    return [item for shard in shards_of(f"{config.root}/shards/{split}") for item in read_shard(shard)]


def read_ledger(config: Config) -> list[tuple[str, str]]:
    """Item id and reason of every refused sample, over all splits."""
    tables = [pq.read_table(io.BytesIO(storage.read_bytes(_ledger_uri(config, split)))) for split in SPLITS]
    return [(row["item_id"], row["reason"]) for table in tables for row in table.to_pylist()]


def _ledger_uri(config: Config, split: str) -> str:
    uri = f"{config.root}/shards/{split}"
    return f"{artifacts.files_uri(uri, artifacts.open_artifact(uri, ShardSetManifest))}/ledger.parquet"


def downloads(num_items: int, first: int = 0) -> list[Download]:
    """Rows with photos that have different numbers of bytes."""
    return [
        Download(f"dress {number}", f"sku-{number}", jpeg("red", (8 + number, 8)))
        for number in range(first, first + num_items)
    ]


def write_members(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    """Write a tar with these files, in this order; a TarInfo is a link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path
