"""A small ShardSet for a test that only needs shards to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raysys.artifacts import InputEntry, ShardSetManifest, Target
from raysys.config.schema import ColumnSplit, PackConfig, TableCatalog
from raysys.records import Item
from raysys.shards.pack import Catalog, pack
from raysys.shards.serial import Serial
from raysys.shards.splits import SPLITS
from raysys.shards.standin import CatalogRow, CatalogSource
from raysys.stream.tar import ShardRef, shards_of


@dataclass(frozen=True)
class Rows(CatalogSource):
    """Items in memory as a file of a catalogue; all are of the train split."""

    items: Sequence[Item] = ()

    def rows(self, section: TableCatalog, split_column: str | None) -> Iterator[CatalogRow]:
        for number, item in enumerate(self.items):
            yield CatalogRow(item.item_id, item.title, item.image, item.attributes, "train", f"row {number}")


def packed_shards(folder: Path, items: Sequence[Item], items_per_shard: int = 4096) -> list[ShardRef]:
    """The items in tars below `folder`, as `raysys pack` writes them."""
    entry = {"catalog": InputEntry(uri="items", fingerprint=str(folder))}
    targets = {
        split: Target(f"{folder}/shards/{split}", ShardSetManifest, {"split": split}, entry)
        for split in SPLITS
    }
    section = PackConfig(split=ColumnSplit(), items_per_shard=items_per_shard)
    pack(Catalog(TableCatalog(path="items"), [Rows("items", items)], len(items)), section, targets, Serial())
    return shards_of(targets["train"].uri)
