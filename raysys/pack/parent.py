"""What an earlier pack left: its items, where they lie, and which of them are dead by now."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raysys import artifacts, storage
from raysys.artifacts import InheritedShard, ShardSetManifest
from raysys.columns import GROUP, ITEM_HASH, ITEM_ID, SHARD
from raysys.config.schema import SPLITS
from raysys.pack.duplicates import Keys, Mask, Rows, first_of_equal
from raysys.pack.scan import key_of_text
from raysys.shards.shard_set import ITEMS, TOMBSTONES

TOMBSTONE_SCHEMA = pa.schema([(SHARD, pa.string()), (ITEM_ID, pa.string())])


@dataclass(frozen=True)
class Known:
    """The items of a parent in the order of its splits; without a parent there are none."""

    uri: str | None
    id_hash: Keys
    content: Keys
    split: NDArray[np.int8]
    groups: pa.ChunkedArray

    def find(self, id_hash: Keys) -> Rows:
        """For each id the position of the item, or -1."""
        num_known = len(self.id_hash)
        first = first_of_equal(np.concatenate([self.id_hash, id_hash]))[num_known:]
        return np.where(first < num_known, first, -1)


def read_known(uri: str | None) -> Known:
    """The items of the ShardSets below `uri`, the `shards` folder of an earlier root.

    Raises: MissingError if they are not all there.
    """
    ids: list[bytes] = []
    content: list[bytes] = []
    splits: list[NDArray[np.int8]] = []
    groups: list[pa.Array] = []
    for number, split in enumerate(SPLITS if uri else ()):
        for table in _items(storage.join(str(uri), split)):
            ids += [key_of_text(item_id) for item_id in table.column(ITEM_ID).to_pylist()]
            content += [value[:16] for value in table.column(ITEM_HASH).to_pylist()]
            splits.append(np.full(table.num_rows, number, dtype=np.int8))
            groups.append(table.column(GROUP).combine_chunks())
    return Known(
        uri,
        _keys(ids),
        _keys(content),
        np.concatenate([np.empty(0, dtype=np.int8), *splits]),
        pa.chunked_array(groups, pa.string()),
    )


@dataclass(frozen=True)
class Inheritance:
    """What the ShardSet of one split takes over."""

    shards: list[InheritedShard]
    tombstones: pa.Table
    num_live: int
    live_items: Iterator[pa.Table]  # `shard` as a URI; read as it is asked for


def inherit(known: Known, split: str, is_live: Mask) -> Inheritance | None:
    """The parent's shards that still hold live items, and what is dead in them; None without a parent."""
    if known.uri is None:
        return None
    place = storage.join(known.uri, split)
    mine = is_live[known.split == SPLITS.index(split)]
    counts: collections.Counter[str] = collections.Counter()
    dead = [_tombstones(place)]
    for items, mask in _masked(place, mine):
        counts.update(items.filter(mask).column(SHARD).to_pylist())
        dead.append(items.filter(pc.invert(mask)).select([SHARD, ITEM_ID]))
    manifest = artifacts.open_artifact(place, ShardSetManifest)
    shards = [
        _counted(shard, counts[shard.uri]) for shard in _all_shards(place, manifest) if counts[shard.uri]
    ]
    tombstones = pa.concat_tables(dead)
    is_needed = pc.is_in(tombstones.column(SHARD), value_set=pa.array(list(counts), pa.string()))
    ordered = tombstones.filter(is_needed).sort_by([(SHARD, "ascending"), (ITEM_ID, "ascending")])
    live = (items.filter(mask) for items, mask in _masked(place, mine))
    return Inheritance(shards, ordered, int(mine.sum()), live)


def _masked(place: str, mask: Mask) -> Iterator[tuple[pa.Table, pa.Array]]:
    """The items with their shards as URIs, some at a time, and which of them the mask names."""
    start = 0
    for items in _items(place):
        uris = [_absolute(place, name) for name in items.column(SHARD).to_pylist()]
        position = items.schema.get_field_index(SHARD)
        yield (
            items.set_column(position, SHARD, pa.array(uris, pa.string())),
            pa.array(mask[start : start + items.num_rows]),
        )
        start += items.num_rows


def _items(place: str) -> Iterator[pa.Table]:
    artifacts.open_artifact(place, ShardSetManifest)
    with storage.open_input(storage.join(place, ITEMS)) as stream:
        for batch in pq.ParquetFile(stream).iter_batches():
            yield pa.Table.from_batches([batch])


def _all_shards(place: str, manifest: ShardSetManifest) -> Iterator[InheritedShard]:
    yield from manifest.inherited
    for own in manifest.shards:
        uri = _absolute(place, own.name)
        yield InheritedShard(
            uri=uri, num_items=own.num_items, num_live=own.num_items, bytes=own.bytes, sha256=own.sha256
        )


def _tombstones(place: str) -> pa.Table:
    uri = storage.join(place, TOMBSTONES)
    if not storage.exists(uri):
        return TOMBSTONE_SCHEMA.empty_table()
    with storage.open_input(uri) as stream:
        return pq.read_table(stream)


def _counted(shard: InheritedShard, num_live: int) -> InheritedShard:
    return shard.model_copy(update={"num_live": num_live})


def _absolute(place: str, shard: str) -> str:
    return shard if "/" in shard else storage.join(storage.absolute(place), shard)


def _keys(values: list[bytes]) -> Keys:
    return np.frombuffer(b"".join(values), dtype=">u8").reshape(-1, 2).astype(np.uint64)
