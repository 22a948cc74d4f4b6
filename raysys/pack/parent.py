"""The parent of an incremental pack: its items, their shards, and which of them are still valid."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raysys import artifacts, storage
from raysys.artifacts import InheritedShard, ShardSetManifest
from raysys.artifacts.intact import damage_named
from raysys.columns import GROUP, ITEM_HASH, ITEM_ID, SHARD
from raysys.config.schema import SPLITS
from raysys.pack.duplicates import Hashes, Mask, RowNumbers, first_of_equal
from raysys.pack.scan import hash_of_text
from raysys.shards.shard_set import ITEMS


@dataclass(frozen=True)
class ParentItems:
    """The items of a parent in the order of its splits; empty without a parent."""

    uri: str | None
    id_hash: Hashes
    item_hash: Hashes
    split: NDArray[np.int8]  # position in SPLITS
    groups: pa.ChunkedArray

    def find(self, id_hash: Hashes) -> RowNumbers:
        """For each id the position of its item; -1 for a new id."""
        num_items = len(self.id_hash)
        first = first_of_equal(np.concatenate([self.id_hash, id_hash]))[num_items:]
        return np.where(first < num_items, first, -1)


def read_parent_items(uri: str | None) -> ParentItems:
    """The items of the ShardSets below `uri`, the `shards` folder of an earlier root.

    Raises: MissingError if the ShardSet of a split is missing.
    """
    ids: list[bytes] = []
    item_hashes: list[bytes] = []
    splits: list[NDArray[np.int8]] = []
    groups: list[pa.Array] = []
    for number, split in enumerate(SPLITS if uri else ()):
        for items in _items(_folder(str(uri), split)):
            ids += [hash_of_text(item_id) for item_id in items.column(ITEM_ID).to_pylist()]
            item_hashes += [value[:16] for value in items.column(ITEM_HASH).to_pylist()]
            splits.append(np.full(items.num_rows, number, dtype=np.int8))
            groups.append(items.column(GROUP).combine_chunks())
    return ParentItems(
        uri,
        _as_hashes(ids),
        _as_hashes(item_hashes),
        np.concatenate([np.empty(0, dtype=np.int8), *splits]),
        pa.chunked_array(groups, pa.string()),
    )


@dataclass(frozen=True)
class Inheritance:
    """The parent's shards that the new ShardSet of one split reuses, and their items."""

    shards: list[InheritedShard]
    num_live: int
    live_items: Iterator[pa.Table]  # `shard` is a URI; batches are read lazily


def inherit(parent: ParentItems, split: str, is_live: Mask) -> Inheritance | None:
    """The parent's shards with live items, and those items; None without a parent."""
    if parent.uri is None:
        return None
    folder = _folder(parent.uri, split)
    is_live_in_split = is_live[parent.split == SPLITS.index(split)]
    num_live: collections.Counter[str] = collections.Counter()
    for items, mask in _items_with_mask(folder, is_live_in_split):
        num_live.update(items.filter(mask).column(SHARD).to_pylist())
    manifest = artifacts.open_artifact(folder, ShardSetManifest)
    shards = [
        shard.model_copy(update={"num_live": num_live[shard.uri]})
        for shard in _all_shards(folder, manifest)
        if num_live[shard.uri]
    ]
    live_items = (items.filter(mask) for items, mask in _items_with_mask(folder, is_live_in_split))
    return Inheritance(shards, int(is_live_in_split.sum()), live_items)


def _folder(uri: str, split: str) -> str:
    """The folder with the files of the parent's ShardSet of a split."""
    shard_set_uri = storage.join(uri, split)
    return artifacts.files_uri(shard_set_uri, artifacts.open_artifact(shard_set_uri, ShardSetManifest))


def _items_with_mask(folder: str, mask: Mask) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Batches of items, their shards as URIs, each with its slice of the mask."""
    start = 0
    for items in _items(folder):
        uris = [_shard_uri(folder, name) for name in items.column(SHARD).to_pylist()]
        position = items.schema.get_field_index(SHARD)
        yield (
            items.set_column(position, SHARD, pa.array(uris, pa.string())),
            pa.array(mask[start : start + items.num_rows]),
        )
        start += items.num_rows


def _items(folder: str) -> Iterator[pa.Table]:
    artifacts.open_artifact(folder, ShardSetManifest)
    uri = storage.join(folder, ITEMS)
    with damage_named(folder, ShardSetManifest, [ITEMS]), storage.open_input(uri) as stream:
        for batch in pq.ParquetFile(stream).iter_batches():
            yield pa.Table.from_batches([batch])


def _all_shards(folder: str, manifest: ShardSetManifest) -> Iterator[InheritedShard]:
    yield from manifest.inherited
    for shard in manifest.shards:
        yield InheritedShard(
            uri=_shard_uri(folder, shard.name),
            num_items=shard.num_items,
            num_live=shard.num_items,
            bytes=shard.bytes,
            sha256=shard.sha256,
        )


def _shard_uri(folder: str, shard: str) -> str:
    return shard if "/" in shard else storage.join(storage.absolute(folder), shard)


def _as_hashes(values: list[bytes]) -> Hashes:
    return np.frombuffer(b"".join(values), dtype=">u8").reshape(-1, 2).astype(np.uint64)
