"""Planning: assigns every row of the catalogue a status, a group, a split and a shard, all rows at once.

Memory per usable row: 16 bytes each for five hashes (id, photo, phash, seller and title, whole item), 8 for
its size, 8 for its position, about 15 for its id as text with offset, and 30 for group, split, shard and
status: about 140 bytes, and the same again while sorting. That is 0.14 GB (peak 0.28) for a million rows, and
14 GB (peak 28) for a hundred million. The index of perceptual hashes takes about 100 bytes more for
each hash that is not near an earlier one. Titles and photos are never loaded here.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raysys import storage
from raysys.columns import ITEM_HASH, ITEM_ID, PHOTO_HASH, REASON, SPLIT
from raysys.config.schema import SPLITS, ColumnSplit, GroupSplit, PackConfig
from raysys.pack.duplicates import Hashes, Mask, RowNumbers, cluster_leaders, first_of_equal
from raysys.pack.parent import ParentItems
from raysys.pack.scan import ID_HASH, PHOTO_SHA256, SELLER_TITLE_HASH, TAR_BYTES
from raysys.pack.splits import split_of_group

PACKED, REFUSED, REPEATED_ID, INHERITED = range(4)  # the status of a row
NO_SPLIT = NO_GROUP = NO_SHARD = -1


@dataclass(frozen=True)
class ScannedRows:
    """The columns of `SCAN_SCHEMA` that planning needs, as arrays in the order of the catalogue."""

    part_rows: list[int]  # number of rows of each part
    is_usable: Mask  # by row
    split: NDArray[np.int8]  # by row: position in SPLITS; NO_SPLIT where the group decides
    id_hash: Hashes  # by row
    item_ids: pa.ChunkedArray  # by row
    photo_sha256: Hashes  # by usable row, as are all fields below
    phash: Hashes
    has_phash: Mask
    seller_title_hash: Hashes
    has_seller: Mask
    item_hash: Hashes
    tar_bytes: NDArray[np.int64]


@dataclass(frozen=True)
class PlannedShard:
    """A tar to be written."""

    split: str
    name: str
    num_items: int


@dataclass(frozen=True)
class Plan:
    """The decision for every row."""

    status: NDArray[np.int8]  # by row
    split: NDArray[np.int8]  # by row
    shard: NDArray[np.int32]  # by row: position in `shards`; NO_SHARD unless packed
    group: RowNumbers  # by row: position in `group_names`; NO_GROUP for a refused row
    group_names: pa.Array  # the ids of all rows, then the groups of the parent's items
    shards: list[PlannedShard]
    is_live: Mask  # by item of the parent: unchanged in the new catalogue
    num_split_groups: int  # groups with items in more than one split
    digest: str  # a hash over the items, their groups and their places: equal plans write equal tars

    def num_refused(self) -> int:
        """The number of rows that no shard will hold."""
        return int(((self.status == REFUSED) | (self.status == REPEATED_ID)).sum())


def read_scanned_rows(folder: str, parts: Sequence[str]) -> ScannedRows:
    """Read the planning columns of all parts, one part at a time."""
    collected: dict[str, list[Any]] = {field.name: [] for field in dataclasses.fields(ScannedRows)}
    for name in parts:
        with storage.open_input(storage.join(folder, name)) as stream:
            table = pq.read_table(stream, columns=_PLANNING_COLUMNS)
        for field, value in _as_arrays(table).items():
            collected[field].append(value)
    ids = pa.chunked_array(
        [chunk for column in collected.pop("item_ids") for chunk in column.chunks], pa.string()
    )
    part_rows = collected.pop("part_rows")
    arrays = {name: np.concatenate(values) for name, values in collected.items()}
    return ScannedRows(part_rows=part_rows, item_ids=ids, **arrays)


def make_plan(scanned: ScannedRows, section: PackConfig, parent: ParentItems) -> Plan:
    """Decide about every row. Equal inputs give equal plans."""
    usable = np.flatnonzero(scanned.is_usable)
    is_first = first_of_equal(scanned.id_hash[usable]) == np.arange(len(usable))
    status = np.full(len(scanned.is_usable), REFUSED, dtype=np.int8)
    status[usable] = np.where(is_first, PACKED, REPEATED_ID)
    accepted = np.flatnonzero(is_first)  # positions among the usable rows
    rows = usable[accepted]  # the same as positions among all rows
    parent_item = parent.find(scanned.id_hash[rows])
    group_names = pa.chunked_array([*scanned.item_ids.chunks, *parent.groups.chunks], pa.string())
    group_names = pa.concat_arrays(group_names.cast(pa.large_string()).chunks)
    group = np.full(len(status), NO_GROUP, dtype=np.int64)
    group[rows] = _groups(scanned, accepted, rows, parent_item, section)
    split = _splits(scanned, rows, group, group_names, parent_item, parent, section)
    is_inherited = parent_item >= 0
    item = parent_item[is_inherited]
    is_inherited[is_inherited] = (parent.item_hash[item] == scanned.item_hash[accepted[is_inherited]]).all(
        axis=1
    ) & (parent.split[item] == split[rows[is_inherited]])
    status[rows[is_inherited]] = INHERITED
    is_live = np.zeros(len(parent.split), dtype=bool)
    is_live[parent_item[is_inherited]] = True
    shard, shards = _shards(scanned, accepted[~is_inherited], rows[~is_inherited], split, section)
    num_split_groups = _count_split_groups(group[rows], split[rows])
    groups = group_names.take(pa.array(group[rows]))
    places = (split[rows], shard[rows], scanned.id_hash[rows], scanned.item_hash[accepted])
    digest = _digest(places, groups, is_live)
    return Plan(status, split, shard, group, group_names, shards, is_live, num_split_groups, digest)


def _groups(
    scanned: ScannedRows,
    accepted: RowNumbers,
    rows: RowNumbers,
    parent_item: RowNumbers,
    section: PackConfig,
) -> RowNumbers:
    """The group of each accepted row. Items of the parent come first and keep their groups."""
    order = np.argsort(parent_item < 0, kind="stable")
    ordered = accepted[order]
    leader = cluster_leaders(
        scanned.photo_sha256[ordered],
        scanned.phash[ordered],
        scanned.has_phash[ordered],
        scanned.seller_title_hash[ordered],
        scanned.has_seller[ordered],
        max_hash_distance=section.duplicates.max_hash_distance,
        num_known=int((parent_item >= 0).sum()),
    )
    name = np.where(parent_item[order] >= 0, len(scanned.is_usable) + parent_item[order], rows[order])
    group = np.empty(len(rows), dtype=np.int64)
    group[order] = name[leader]
    return group


def _splits(
    scanned: ScannedRows,
    rows: RowNumbers,
    group: RowNumbers,
    group_names: pa.Array,
    parent_item: RowNumbers,
    parent: ParentItems,
    section: PackConfig,
) -> NDArray[np.int8]:
    split = scanned.split.copy()
    if isinstance(section.split, GroupSplit):
        # A refused row has no group: its own id decides which split's ledger lists it.
        owners = np.where(group >= 0, group, np.arange(len(group)))
        owners, position = np.unique(owners, return_inverse=True)
        split_of_owner = [
            SPLITS.index(split_of_group(name, section.split)) for name in _names(group_names, owners)
        ]
        split = np.array(split_of_owner, dtype=np.int8)[position]
    if not isinstance(section.split, ColumnSplit):  # an explicit split overrides the parent's
        is_known = parent_item >= 0
        split[rows[is_known]] = parent.split[parent_item[is_known]]
    return split


def _names(group_names: pa.Array, positions: RowNumbers) -> Iterator[str]:
    return (name.as_py() for name in group_names.take(pa.array(positions)))


def _shards(
    scanned: ScannedRows,
    accepted: RowNumbers,
    rows: RowNumbers,
    split: NDArray[np.int8],
    section: PackConfig,
) -> tuple[NDArray[np.int32], list[PlannedShard]]:
    """Sort the rows of a split by the hashes of their ids (a shard is a random sample) and cut to size."""
    shard = np.full(len(split), NO_SHARD, dtype=np.int32)
    shards: list[PlannedShard] = []
    keys = scanned.id_hash[rows]
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    for number, name in enumerate(SPLITS):
        ordered = order[split[rows[order]] == number]
        ends = np.cumsum(scanned.tar_bytes[accepted[ordered]])
        start = num_shards = 0
        while start < len(ordered):
            limit = (ends[start - 1] if start else 0) + section.shard_megabytes * 2**20
            fitting = int(np.searchsorted(ends, limit, side="right"))
            stop = max(start + 1, min(fitting, start + section.items_per_shard))
            shard[rows[ordered[start:stop]]] = len(shards)
            shards.append(PlannedShard(name, f"{num_shards:05d}.tar", stop - start))
            start, num_shards = stop, num_shards + 1
    return shard, shards


def _digest(
    places: tuple[NDArray[np.int8], NDArray[np.int32], Hashes, Hashes], groups: pa.Array, is_live: Mask
) -> str:
    """A hash over split, shard, id, content and group of every item, independent of the order of the rows."""
    split, shard, id_hash, _ = places
    order = np.lexsort((id_hash[:, 1], id_hash[:, 0], shard, split))
    digest = hashlib.sha256()
    for values in places:
        digest.update(values[order].tobytes())
    digest.update(pa.record_batch([groups.take(pa.array(order))], names=["group"]).serialize())
    digest.update(is_live.tobytes())
    return digest.hexdigest()


def _count_split_groups(group: RowNumbers, split: NDArray[np.int8]) -> int:
    """The number of groups with items in more than one split."""
    pairs = np.unique(group * len(SPLITS) + split)
    return int((np.unique(pairs // len(SPLITS), return_counts=True)[1] > 1).sum())


_PLANNING_COLUMNS = [
    ITEM_ID,
    REASON,
    SPLIT,
    ID_HASH,
    PHOTO_SHA256,
    PHOTO_HASH,
    SELLER_TITLE_HASH,
    ITEM_HASH,
    TAR_BYTES,
]


def _as_arrays(table: pa.Table) -> dict[str, Any]:
    """The fields of ScannedRows for one part."""
    is_usable = np.asarray(table.column(REASON).is_null())
    split = np.full(table.num_rows, NO_SPLIT, dtype=np.int8)
    split_names = np.array(table.column(SPLIT).to_pylist(), dtype=object)
    for number, name in enumerate(SPLITS):
        split[split_names == name] = number
    usable = table.filter(pa.array(is_usable))
    return {
        "part_rows": table.num_rows,
        "is_usable": is_usable,
        "split": split,
        "id_hash": _hashes(table.column(ID_HASH)),
        "item_ids": table.column(ITEM_ID),
        "photo_sha256": _hashes(usable.column(PHOTO_SHA256)),
        "phash": _hashes(usable.column(PHOTO_HASH)),
        "has_phash": np.asarray(usable.column(PHOTO_HASH).is_valid()),
        "seller_title_hash": _hashes(usable.column(SELLER_TITLE_HASH)),
        "has_seller": np.asarray(usable.column(SELLER_TITLE_HASH).is_valid()),
        "item_hash": _hashes(usable.column(ITEM_HASH)),
        "tar_bytes": usable.column(TAR_BYTES).to_numpy(),
    }


def _hashes(column: pa.ChunkedArray) -> Hashes:
    """The first 128 bits of each value of a fixed-width binary column; zeros for null."""
    width = column.type.byte_width
    filled = column.fill_null(bytes(width)).combine_chunks()
    chunks = filled.chunks if isinstance(filled, pa.ChunkedArray) else [filled]
    arrays = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[
            chunk.offset * width : (chunk.offset + len(chunk)) * width
        ]
        for chunk in chunks
        if len(chunk)
    ]
    raw = np.concatenate(arrays) if arrays else np.empty(0, np.uint8)
    return np.ascontiguousarray(raw.reshape(-1, width)[:, :16]).view(">u8").astype(np.uint64)
