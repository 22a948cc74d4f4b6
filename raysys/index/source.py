"""The items of an EmbeddingSet as rows of an index: which row an item has, and its columns file by file.

Items are spread over the FAISS files by the hash of their id. Rows count through the first FAISS file, then
the second, and so on; within one, items have the order of the EmbeddingSet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64
from numpy import ndarray

from raysys import artifacts
from raysys.artifacts import EmbeddingSetManifest
from raysys.artifacts.embedding_set import read_part, require_unique_ids, vector_files
from raysys.artifacts.intact import read_table
from raysys.columns import ITEM_ID, SHARD, SPLIT
from raysys.errors import DamagedData
from raysys.index.changes import FILE as CHANGES_FILE
from raysys.index.changes import ChangedItems
from raysys.index.partition import file_of

_BLOCK_ROWS = 65_536  # 32 MB of 128 float32
_GROUP_ROWS = 200_000
_COLUMNS = (ITEM_ID, SPLIT, SHARD)
NO_ROW = -1  # of an item that a change replaces or deletes


@dataclass(frozen=True)
class SourceFile:
    """A file of an EmbeddingSet, and the row in the index of each of its items, or `NO_ROW`."""

    uri: str
    manifest: EmbeddingSetManifest
    name: str
    rows: Int64[ndarray, " n"]

    def read(self, is_wanted: Bool[ndarray, " n"]) -> pa.Table:
        """Some items with their columns and vectors. Raises: DamagedData for a vector that is not usable."""
        table = read_part(self.uri, self.manifest, self.name)
        return table if is_wanted.all() else table.filter(pa.array(is_wanted))


@dataclass(frozen=True)
class IndexSource:
    """The items of an EmbeddingSet in the order of the rows of their index."""

    uri: str
    files: Sequence[SourceFile]
    shard_sizes: Sequence[int]
    """The number of rows of each FAISS file."""
    held_out_rows: Int64[ndarray, " n"]
    """Rows of the splits that training did not see; all rows if there are none."""

    def __len__(self) -> int:
        return sum(self.shard_sizes)


def read_source(uri: str, num_shards: int, changed: ChangedItems | None = None) -> IndexSource:
    """Read the ids and splits of an EmbeddingSet; only rows remain in memory, at most 16 bytes an item.

    The `changed` items come last, and the items of the set that they replace or delete have no row.
    Raises: DamagedData if there are no items, or if two of them have one id.
    """
    manifest = artifacts.open_artifact(uri, EmbeddingSetManifest)
    remedy = artifacts.make_again(uri, manifest)
    files = [(uri, manifest, name) for name in vector_files(manifest)]
    tables = [_read_columns(*file) for file in files]
    has_row = [np.ones(len(table), bool) for table in tables]
    if tables:
        require_unique_ids(uri, pa.concat_tables(tables), f"make the ids unique, pack again, and {remedy}")
    if changed is not None:
        is_changed = (pc.is_in(table.column(ITEM_ID), value_set=changed.ids) for table in tables)
        has_row = [~mask.to_numpy() for mask in is_changed]
        files.append((changed.uri, changed.manifest, CHANGES_FILE))
        tables.append(_read_columns(*files[-1]))
        has_row.append(np.ones(len(tables[-1]), bool))
    if not any(mask.any() for mask in has_row):
        raise DamagedData(f"{uri}: an EmbeddingSet without items cannot be indexed; {remedy}")
    items, with_row = pa.concat_tables(tables), np.concatenate(has_row)
    shards = shard_numbers(items.column(ITEM_ID).filter(pa.array(with_row)), num_shards)
    rows = np.full(len(items), NO_ROW, np.int64)
    rows[np.flatnonzero(with_row)[np.argsort(shards, kind="stable")]] = np.arange(len(shards))
    is_held_out = with_row & pc.not_equal(items.column(SPLIT), "train").to_numpy()
    file_rows = np.split(rows, np.cumsum([len(table) for table in tables])[:-1])
    return IndexSource(
        uri=uri,
        files=[SourceFile(*file, its_rows) for file, its_rows in zip(files, file_rows, strict=True)],
        shard_sizes=[size for size in np.bincount(shards).tolist() if size],  # no file without items
        held_out_rows=np.sort(rows[is_held_out]) if is_held_out.any() else np.arange(len(shards)),
    )


def _read_columns(uri: str, manifest: EmbeddingSetManifest, name: str) -> pa.Table:
    """Ids, splits and tars; the names of the tars, which repeat, as a dictionary."""
    table = read_table(uri, name, manifest, _COLUMNS)
    place = table.column_names.index(SHARD)
    return table.set_column(place, SHARD, table.column(SHARD).dictionary_encode())


def shard_numbers(item_ids: pa.ChunkedArray, num_shards: int) -> Int64[ndarray, " n"]:
    """The FAISS file of each item."""
    if num_shards == 1:
        return np.zeros(len(item_ids), np.int64)
    ids = (item_id for chunk in item_ids.chunks for item_id in chunk.to_pylist())
    return np.fromiter((file_of(item_id, num_shards) for item_id in ids), np.int64, len(item_ids))


def blocks(
    files: Sequence[SourceFile], first_row: int = 0, end_row: int | None = None
) -> Iterator[tuple[Int64[ndarray, " n"], pa.Table]]:
    """Rows and their items with vectors, in the order of the files; only rows of the range if given.

    Many small files are one block.
    """
    pending: list[tuple[ndarray, pa.Table]] = []
    for file in files:
        is_here = file.rows >= first_row
        if end_row is not None:
            is_here &= file.rows < end_row
        if is_here.any():
            pending.append((file.rows[is_here], file.read(is_here)))
        if sum(len(rows) for rows, _ in pending) >= _BLOCK_ROWS:
            yield _joined(pending)
            pending = []
    if pending:
        yield _joined(pending)


def groups(files: Sequence[SourceFile]) -> list[list[SourceFile]]:
    """The files in order, in groups that are worth a task."""
    grouped: list[list[SourceFile]] = [[]]
    for file in files:
        if sum(len(member.rows) for member in grouped[-1]) >= _GROUP_ROWS:
            grouped.append([])
        grouped[-1].append(file)
    return grouped


def _joined(parts: Sequence[tuple[ndarray, pa.Table]]) -> tuple[ndarray, pa.Table]:
    return np.concatenate([rows for rows, _ in parts]), pa.concat_tables([table for _, table in parts])
