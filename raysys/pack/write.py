"""One tar: samples sorted by key and with a fixed time, so that the same items give the same bytes.

Any WebDataset reader takes it: `{key}.jpg`, `{key}.json`. One photo at a time is in memory. Beside the tar a
file in the scratch folder says what became of each row: a shard that has both is not written again.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
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
from raysys.errors import MissingError
from raysys.pack.plan import PlannedShard
from raysys.pack.scan import PHOTO_BYTES, PHOTO_OFFSET, PHOTO_SHA256, PHOTO_URI

SHARD_NUMBER = "shard_number"  # position in the plan's list of shards
KEY = "key"
ROWS = pa.schema(
    [
        (SHARD_NUMBER, pa.int32()),
        (KEY, pa.string()),
        (ITEM_ID, pa.string()),
        (TITLE, pa.string()),
        (ATTRIBUTES, pa.string()),
        (GROUP, pa.string()),
        (SOURCE, pa.string()),
        (PHOTO_URI, pa.string()),
        (PHOTO_OFFSET, pa.int64()),
        (PHOTO_BYTES, pa.int64()),
        (PHOTO_SHA256, pa.binary(32)),
        (PHOTO_HASH, pa.binary(16)),
        (ITEM_HASH, pa.binary(32)),
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
_ENTRY = b"shard"  # in the done-file's metadata
_READABLE = 0o444


@dataclass(frozen=True)
class Places:
    """Where tars go (by split), and where the scratch folder is."""

    uri_of: dict[str, str]
    scratch: str

    def tar(self, shard: PlannedShard) -> str:
        """The tar of a shard."""
        return storage.join(self.uri_of[shard.split], shard.name)

    def done(self, shard: PlannedShard) -> str:
        """What says that it is written."""
        return storage.join(self.scratch, f"done-{shard.split}-{shard.name.removesuffix('.tar')}.parquet")


@dataclass(frozen=True)
class Done:
    """A written shard: `entry` has no items if every photo was refused, and there is no tar then."""

    entry: ShardEntry
    rows: pa.Table

    @property
    def items(self) -> pa.Table:
        """What is in the tar."""
        return self.rows.filter(self.rows.column(REASON).is_null()).select(ITEMS_SCHEMA.names)

    @property
    def refused(self) -> pa.Table:
        """What could not be taken."""
        return self.rows.filter(self.rows.column(REASON).is_valid())


def write_shards(rows: pa.Table, *, shards: list[PlannedShard], places: Places) -> int:
    """Write every shard that `rows` (of ROWS) holds in full; the number of rows done."""
    ordered = rows.sort_by([(SHARD_NUMBER, "ascending"), (KEY, "ascending")])
    start = 0
    while start < ordered.num_rows:
        shard = shards[ordered.column(SHARD_NUMBER)[start].as_py()]
        mine = ordered.slice(start, shard.num_items)
        assert len(set(mine.column(SHARD_NUMBER).to_pylist())) == 1, "a shard came in pieces"
        assert mine.num_rows == shard.num_items, "a shard came without all its rows"
        _write_shard(mine, shard, places)
        start += shard.num_items
    return int(rows.num_rows)


def read_done(shard: PlannedShard, places: Places) -> Done | None:
    """What was written of a shard; None if it is not there in full."""
    uri = places.done(shard)
    if not storage.exists(uri):
        return None
    with storage.open_input(uri) as stream:
        table = pq.read_table(stream)
    entry = ShardEntry.model_validate_json(table.schema.metadata[_ENTRY])
    if entry.num_items and storage.stat_files([places.tar(shard)])[0][0] != entry.bytes:
        return None
    return Done(entry, table)


def _write_shard(rows: pa.Table, shard: PlannedShard, places: Places) -> None:
    refusals: list[tuple[str, str] | tuple[None, None]] = []
    uri, num_items = places.tar(shard), 0
    with storage.writable_file(uri) as path:
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in _each(rows):
                photo = _unchanged(row)
                if isinstance(photo, str):
                    refusals.append(("changed_while_packing", photo))
                    continue
                refusals.append((None, None))
                _add(tar, f"{row[KEY]}.jpg", photo)
                _add(tar, f"{row[KEY]}.json", _said(row))
                num_items += 1
        num_bytes, sha256 = storage.sha256_of(str(path))
    if not num_items:
        storage.delete(uri)
    entry = ShardEntry(name=shard.name, num_items=num_items, bytes=num_bytes, sha256=sha256)
    _write_done(rows, refusals, entry, places.done(shard))


def _each(rows: pa.Table) -> Any:
    return (row for batch in rows.to_batches(max_chunksize=256) for row in batch.to_pylist())


def _unchanged(row: dict[str, Any]) -> bytes | str:
    """The photo, or why it is not the one that was surveyed."""
    try:
        photo = storage.read_range(row[PHOTO_URI], row[PHOTO_OFFSET], row[PHOTO_BYTES])
    except MissingError as error:
        return str(error)
    if hashlib.sha256(photo).digest() != row[PHOTO_SHA256]:
        return f"{row[PHOTO_URI]}: other bytes than when it was surveyed; pack again"
    return photo


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = (
        len(data),
        _READABLE,
    )  # and everything else as it is by default: time 0, nobody's
    tar.addfile(member, io.BytesIO(data))


def _said(row: dict[str, Any]) -> bytes:
    said = {name: row[name] for name in (ITEM_ID, TITLE, GROUP)} | {ATTRIBUTES: json.loads(row[ATTRIBUTES])}
    return artifacts.canonical_json(said).encode()


def _write_done(rows: pa.Table, refusals: list[Any], entry: ShardEntry, uri: str) -> None:
    columns = {name: rows.column(name) for name in (ITEM_ID, ITEM_HASH, GROUP, PHOTO_HASH, SOURCE)}
    columns[SHARD] = pa.array([entry.name] * rows.num_rows, pa.string())
    columns[REASON] = pa.array([reason for reason, _ in refusals], pa.string())
    columns[DETAIL] = pa.array([detail for _, detail in refusals], pa.string())
    schema = _DONE_SCHEMA.with_metadata({_ENTRY: entry.model_dump_json().encode()})
    with storage.writable_file(uri) as path:
        pq.write_table(pa.table({name: columns[name] for name in schema.names}, schema=schema), path)
