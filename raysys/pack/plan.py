"""Which row goes to which shard: decided for the whole catalogue at once, on a few numbers a row.

A usable row takes 16 bytes for its id's hash, 16 for its photo's, 16 for its look, 16 for seller and title,
16 for its content (with a parent), 8 for its size, 8 for its row, its id as text (some 15, with its offset),
and 30 for group, split, shard and status: about 130 bytes, and as much again for a moment while sorting.
That is 0.13 GB (peak 0.26) for a million rows, and 13 GB (peak 26) for a hundred million. The index of
looks takes about 100 bytes more for each look that is unlike all before. Titles and photos never come here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raysys import storage
from raysys.columns import ITEM_HASH, ITEM_ID, PHOTO_HASH, REASON, SPLIT
from raysys.config.schema import SPLITS, ColumnSplit, GroupSplit, PackConfig
from raysys.pack.duplicates import Keys, Mask, Rows, cluster_leaders, first_of_equal
from raysys.pack.parent import Known
from raysys.pack.scan import ID_HASH, PHOTO_SHA256, TAR_BYTES, TWIN
from raysys.pack.splits import split_of_group

PACKED, REFUSED, REPEATED, INHERITED = range(4)
NOWHERE = -1


@dataclass(frozen=True)
class Facts:
    """What planning needs of all rows, in the order of the catalogue."""

    part_rows: list[int]  # number of rows of each part
    is_usable: Mask  # by row
    split: NDArray[np.int8]  # by row: position in SPLITS, NOWHERE where the group decides
    id_hash: Keys  # by row
    item_ids: pa.ChunkedArray  # by row
    photo: Keys  # from here on by usable row
    look: Keys
    has_look: Mask
    twin: Keys
    has_twin: Mask
    content: Keys
    tar_bytes: NDArray[np.int64]


@dataclass(frozen=True)
class PlannedShard:
    """A tar to be written."""

    split: str
    name: str
    num_items: int


@dataclass(frozen=True)
class Plan:
    """What becomes of every row."""

    status: NDArray[np.int8]  # by row
    split: NDArray[np.int8]  # by row
    shard: NDArray[np.int32]  # by row: position in `shards`, NOWHERE unless packed
    group: Rows  # by row: position in `names`; NOWHERE for a refused one
    names: pa.Array  # of groups: the ids of all rows, then the groups of the parent
    shards: list[PlannedShard]
    is_live: Mask  # by item of the parent: still as it was
    num_split_groups: int  # groups that lie in more than one split

    def num_refused(self) -> int:
        """Rows that will not be in any shard."""
        return int(((self.status == REFUSED) | (self.status == REPEATED)).sum())


def read_facts(folder: str, parts: Sequence[str]) -> Facts:
    """The facts of all parts, part by part; only the columns that planning needs."""
    gathered: dict[str, list[Any]] = {field.name: [] for field in dataclasses.fields(Facts)}
    for name in parts:
        with storage.open_input(storage.join(folder, name)) as stream:
            table = pq.read_table(stream, columns=_COLUMNS)
        for field, value in _columns(table).items():
            gathered[field].append(value)
    ids = pa.chunked_array(
        [chunk for column in gathered.pop("item_ids") for chunk in column.chunks], pa.string()
    )
    part_rows = gathered.pop("part_rows")
    return Facts(part_rows=part_rows, item_ids=ids, **{k: np.concatenate(v) for k, v in gathered.items()})


def plan(facts: Facts, section: PackConfig, known: Known) -> Plan:
    """The same facts give the same plan."""
    usable = np.flatnonzero(facts.is_usable)
    is_first = first_of_equal(facts.id_hash[usable]) == np.arange(len(usable))
    status = np.full(len(facts.is_usable), REFUSED, dtype=np.int8)
    status[usable] = np.where(is_first, PACKED, REPEATED)
    kept = np.flatnonzero(is_first)  # positions among the usable
    rows = usable[kept]
    before = known.find(facts.id_hash[rows])  # item of the parent, or NOWHERE
    names = pa.chunked_array([*facts.item_ids.chunks, *known.groups.chunks], pa.string())
    names = pa.concat_arrays(names.cast(pa.large_string()).chunks)
    group = np.full(len(status), NOWHERE, dtype=np.int64)
    group[rows] = _groups(facts, kept, rows, before, section)
    split = _splits(facts, rows, group, names, before, known, section)
    is_same = before >= 0
    at = before[is_same]
    is_same[is_same] = (known.content[at] == facts.content[kept[is_same]]).all(axis=1) & (
        known.split[at] == split[rows[is_same]]
    )
    status[rows[is_same]] = INHERITED
    is_live = np.zeros(len(known.split), dtype=bool)
    is_live[before[is_same]] = True
    shard, shards = _shards(facts, kept[~is_same], rows[~is_same], split, section)
    return Plan(status, split, shard, group, names, shards, is_live, _count_split(group[rows], split[rows]))


def _groups(facts: Facts, kept: Rows, rows: Rows, before: Rows, section: PackConfig) -> Rows:
    """The group of each kept row: what the parent knows first, so that what is known moves nowhere."""
    order = np.argsort(before < 0, kind="stable")
    num_known = int((before >= 0).sum())
    taken = kept[order]
    lead = cluster_leaders(
        facts.photo[taken],
        facts.look[taken],
        facts.has_look[taken],
        facts.twin[taken],
        facts.has_twin[taken],
        photo_bits=section.duplicates.max_hash_distance,
        num_known=num_known,
    )
    name = np.where(before[order] >= 0, len(facts.is_usable) + before[order], rows[order])
    group = np.empty(len(rows), dtype=np.int64)
    group[order] = name[lead]
    return group


def _splits(
    facts: Facts,
    rows: Rows,
    group: Rows,
    names: pa.Array,
    before: Rows,
    known: Known,
    section: PackConfig,
) -> NDArray[np.int8]:
    split = facts.split.copy()
    if isinstance(section.split, GroupSplit):
        # A refused row belongs to no group: its ledger is that of a group of its own.
        owners = np.where(group >= 0, group, np.arange(len(group)))
        owners, position = np.unique(owners, return_inverse=True)
        of_group = [SPLITS.index(split_of_group(name, section.split)) for name in _taken(names, owners)]
        split = np.array(of_group, dtype=np.int8)[position]
    if not isinstance(section.split, ColumnSplit):  # what a column says is meant
        is_known = before >= 0
        split[rows[is_known]] = known.split[before[is_known]]
    return split


def _taken(names: pa.Array, positions: Rows) -> Any:
    return (name.as_py() for name in names.take(pa.array(positions)))


def _shards(
    facts: Facts, kept: Rows, rows: Rows, split: NDArray[np.int8], section: PackConfig
) -> tuple[NDArray[np.int32], list[PlannedShard]]:
    """Rows of a split in the order of their ids' hashes, so that each shard is a fair sample, cut to size."""
    shard = np.full(len(split), NOWHERE, dtype=np.int32)
    shards: list[PlannedShard] = []
    keys = facts.id_hash[rows]
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    for number, name in enumerate(SPLITS):
        mine = order[split[rows[order]] == number]
        ends = np.cumsum(facts.tar_bytes[kept[mine]])
        start = 0
        while start < len(mine):
            limit = (ends[start - 1] if start else 0) + section.shard_megabytes * 2**20
            fitting = int(np.searchsorted(ends, limit, side="right"))
            stop = max(start + 1, min(fitting, start + section.items_per_shard))
            shard[rows[mine[start:stop]]] = len(shards)
            count = sum(one.split == name for one in shards[-1:]) and int(shards[-1].name[:-4]) + 1
            shards.append(PlannedShard(name, f"{count:05d}.tar", stop - start))
            start = stop
    return shard, shards


def _count_split(group: Rows, split: NDArray[np.int8]) -> int:
    """How many groups lie in more than one split."""
    pairs = np.unique(group * len(SPLITS) + split)
    return int((np.unique(pairs // len(SPLITS), return_counts=True)[1] > 1).sum())


_COLUMNS = [ITEM_ID, REASON, SPLIT, ID_HASH, PHOTO_SHA256, PHOTO_HASH, TWIN, ITEM_HASH, TAR_BYTES]


def _columns(table: pa.Table) -> dict[str, Any]:
    is_usable = np.asarray(table.column(REASON).is_null())
    split = np.full(table.num_rows, NOWHERE, dtype=np.int8)
    said = np.array(table.column(SPLIT).to_pylist(), dtype=object)
    for number, name in enumerate(SPLITS):
        split[said == name] = number
    usable = table.filter(pa.array(is_usable))
    return {
        "part_rows": table.num_rows,
        "is_usable": is_usable,
        "split": split,
        "id_hash": hashes(table.column(ID_HASH)),
        "item_ids": table.column(ITEM_ID),
        "photo": hashes(usable.column(PHOTO_SHA256)),
        "look": hashes(usable.column(PHOTO_HASH)),
        "has_look": np.asarray(usable.column(PHOTO_HASH).is_valid()),
        "twin": hashes(usable.column(TWIN)),
        "has_twin": np.asarray(usable.column(TWIN).is_valid()),
        "content": hashes(usable.column(ITEM_HASH)),
        "tar_bytes": usable.column(TAR_BYTES).to_numpy(),
    }


def hashes(column: pa.ChunkedArray) -> Keys:
    """The first 128 bits of each value of a column of bytes of fixed width, zeros for null."""
    width = column.type.byte_width
    whole = column.fill_null(bytes(width)).combine_chunks()
    chunks = whole.chunks if isinstance(whole, pa.ChunkedArray) else [whole]
    arrays = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[
            chunk.offset * width : (chunk.offset + len(chunk)) * width
        ]
        for chunk in chunks
        if len(chunk)
    ]
    raw = np.concatenate(arrays) if arrays else np.empty(0, np.uint8)
    return np.ascontiguousarray(raw.reshape(-1, width)[:, :16]).view(">u8").astype(np.uint64)
