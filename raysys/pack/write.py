"""Writing: tars with members sorted by key and fixed timestamps, so that equal items give equal bytes.

Any WebDataset reader opens them: `{key}.jpg`, `{key}.json`. One photo is in memory at a time. A done file in
the scratch folder records the result for each row of a tar: a shard with both files is not written again.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ShardEntry
from raysys.columns import (
    ATTRIBUTES,
    DETAIL,
    GROUP,
    ITEM_HASH,
    ITEM_ID,
    PHOTO_HASH,
    REASON,
    SHARD,
    SOURCE,
    TITLE,
)
from raysys.errors import REASON_LENGTH, InputError, unforeseen_at
from raysys.pack.catalog import Refusal
from raysys.pack.paths import PackPaths
from raysys.pack.plan import PlannedShard
from raysys.pack.scan import PHOTO_BYTES, PHOTO_OFFSET, PHOTO_SHA256, PHOTO_URI, SCAN_SCHEMA
from raysys.terminal import printable

PLANNED_SHARD = "planned_shard"  # position in the plan's list of shards
KEY = "key"
SCANNED_COLUMNS = [
    ITEM_ID,
    TITLE,
    ATTRIBUTES,
    SOURCE,
    PHOTO_URI,
    PHOTO_OFFSET,
    PHOTO_BYTES,
    PHOTO_SHA256,
    PHOTO_HASH,
    ITEM_HASH,
]
WRITE_SCHEMA = pa.schema(
    [
        (PLANNED_SHARD, pa.int32()),
        (KEY, pa.string()),
        (GROUP, pa.string()),
        *(SCAN_SCHEMA.field(name) for name in SCANNED_COLUMNS),
    ]
)
ITEMS_SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        (SHARD, pa.string()),
        (ITEM_HASH, pa.binary(32)),
        (GROUP, pa.string()),
        (PHOTO_HASH, pa.binary(16)),
    ]
)
_DONE_SCHEMA = pa.schema([*ITEMS_SCHEMA, (REASON, pa.string()), (DETAIL, pa.string()), (SOURCE, pa.string())])
_ENTRY = b"shard"  # metadata key of the done file: the ShardEntry as JSON
_READABLE = 0o444


@dataclass(frozen=True)
class WrittenShard:
    """The content of a done file. If every photo was refused, `entry` has 0 items and there is no tar."""

    entry: ShardEntry
    rows: pa.Table

    @property
    def items(self) -> pa.Table:
        """The items in the tar, as `ITEMS_SCHEMA`."""
        return self.rows.filter(self.rows.column(REASON).is_null()).select(ITEMS_SCHEMA.names)

    @property
    def refused(self) -> pa.Table:
        """The rows refused while writing."""
        return self.rows.filter(self.rows.column(REASON).is_valid())


def write_shards(rows: pa.Table, *, shards: Sequence[PlannedShard], paths: PackPaths) -> int:
    """Write the shards of `rows` (`WRITE_SCHEMA`), which must be complete. Returns the number of rows."""
    ordered = rows.sort_by([(PLANNED_SHARD, "ascending"), (KEY, "ascending")])
    start = 0
    while start < ordered.num_rows:
        shard = shards[ordered.column(PLANNED_SHARD)[start].as_py()]
        shard_rows = ordered.slice(start, shard.num_items)
        assert shard_rows.num_rows == shard.num_items, "incomplete shard"
        assert len(set(shard_rows.column(PLANNED_SHARD).to_pylist())) == 1, "incomplete shard"
        with unforeseen_at(paths.tar(shard)):
            _write_shard(shard_rows, shard, paths)
        start += shard.num_items
    return int(rows.num_rows)


def read_written_shard(shard: PlannedShard, paths: PackPaths) -> WrittenShard | None:
    """The result of writing a shard; None if it is not completely written."""
    uri = paths.done(shard)
    if not storage.exists(uri):
        return None
    with storage.open_input(uri) as stream:
        table = pq.read_table(stream)
    entry = ShardEntry.model_validate_json(table.schema.metadata[_ENTRY])
    if entry.num_items and storage.stat_files([paths.tar(shard)])[0][0] != entry.bytes:
        return None
    return WrittenShard(entry, table)


def write_done_file(rows: pa.Table, refusals: Sequence[Refusal | None], entry: ShardEntry, uri: str) -> None:
    """Mark a shard as written; `refusals` says of each row why the tar does not hold it."""
    columns = {name: rows.column(name) for name in (ITEM_ID, ITEM_HASH, GROUP, PHOTO_HASH, SOURCE)}
    columns[SHARD] = pa.array([entry.name] * rows.num_rows, pa.string())
    columns[REASON] = pa.array([refusal and refusal.reason for refusal in refusals], pa.string())
    columns[DETAIL] = pa.array([refusal and refusal.detail for refusal in refusals], pa.string())
    schema = _DONE_SCHEMA.with_metadata({_ENTRY: entry.model_dump_json().encode()})
    with storage.writable_file(uri) as path:
        pq.write_table(pa.table({name: columns[name] for name in schema.names}, schema=schema), path)


def _write_shard(rows: pa.Table, shard: PlannedShard, paths: PackPaths) -> None:
    refusals: list[Refusal | None] = []
    uri = paths.tar(shard)
    with storage.writable_file(uri) as path:
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in _row_dicts(rows):
                photo = _read_unchanged(row)
                refusals.append(photo if isinstance(photo, Refusal) else None)
                if isinstance(photo, bytes):
                    _add_member(tar, f"{row[KEY]}.jpg", photo)
                    _add_member(tar, f"{row[KEY]}.json", _sample_json(row))
        num_bytes, sha256 = storage.sha256_of(str(path))
    num_items = refusals.count(None)
    if not num_items:
        storage.delete(uri)
    entry = ShardEntry(name=shard.name, num_items=num_items, bytes=num_bytes, sha256=sha256)
    write_done_file(rows, refusals, entry, paths.done(shard))


def _row_dicts(rows: pa.Table) -> Iterator[dict[str, Any]]:
    return (row for batch in rows.to_batches(max_chunksize=256) for row in batch.to_pylist())


def _read_unchanged(row: dict[str, Any]) -> bytes | Refusal:
    """The photo, unless it has changed since the scan."""
    try:
        photo = storage.read_range(row[PHOTO_URI], row[PHOTO_OFFSET], row[PHOTO_BYTES])
    except InputError as error:  # no such file, access denied
        return Refusal("changed_while_packing", printable(error, REASON_LENGTH))
    if hashlib.sha256(photo).digest() != row[PHOTO_SHA256]:
        return Refusal(
            "changed_while_packing",
            printable(f"{row[PHOTO_URI]}: changed since the scan; pack again", REASON_LENGTH),
        )
    return photo


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # by default: time 0, user and group 0
    member.size, member.mode = len(data), _READABLE
    tar.addfile(member, io.BytesIO(data))


def _sample_json(row: dict[str, Any]) -> bytes:
    sample = {name: row[name] for name in (ITEM_ID, TITLE, GROUP)} | {ATTRIBUTES: json.loads(row[ATTRIBUTES])}
    return artifacts.canonical_json(sample).encode()
