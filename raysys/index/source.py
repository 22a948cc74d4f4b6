"""The items of an EmbeddingSet as rows of an index: which row an item has, and its vectors file by file.

Items are spread over the FAISS files by the hash of their id. Rows count through the first FAISS file, then
the second, and so on; within one, items have the order of the EmbeddingSet.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys import artifacts
from raysys.artifacts import EmbeddingSetManifest
from raysys.artifacts.embedding_set import read_part, require_unique_ids, vector_files, vectors_of
from raysys.artifacts.intact import read_table
from raysys.columns import EMBEDDING, ITEM_ID, SPLIT, embedding_schema
from raysys.errors import DamagedData

_BLOCK_ROWS = 65_536  # 32 MB of 128 float32
_GROUP_ROWS = 200_000


@dataclass(frozen=True)
class VectorFile:
    """A file of an EmbeddingSet, and the row in the index of each of its items."""

    uri: str
    manifest: EmbeddingSetManifest
    name: str
    rows: Int64[ndarray, " n"]

    def read(self) -> Float32[ndarray, "n d"]:
        """The vectors. Raises: DamagedData for one that is not usable."""
        return vectors_of(read_part(self.uri, self.manifest, self.name))

    def read_rows(self, rows: Int64[ndarray, " m"]) -> tuple[Int64[ndarray, " k"], Float32[ndarray, "k d"]]:
        """Those of `rows` that this file has, with their vectors."""
        is_wanted = np.isin(self.rows, rows)
        return self.rows[is_wanted], self.read()[is_wanted]


@dataclass(frozen=True)
class IndexSource:
    """All items of an EmbeddingSet in the order of the rows of their index."""

    items: pa.Table
    """The columns of the EmbeddingSet without the vectors."""
    files: Sequence[VectorFile]
    shard_sizes: Sequence[int]
    """The number of rows of each FAISS file."""

    def __len__(self) -> int:
        return len(self.items)

    def held_out_rows(self) -> Int64[ndarray, " n"]:
        """Rows of the splits that training did not see; all rows if there are none."""
        is_held_out = np.asarray(self.items.column(SPLIT).to_numpy(zero_copy_only=False) != "train")
        return np.flatnonzero(is_held_out if is_held_out.any() else ~is_held_out)


def read_source(uri: str, num_shards: int) -> IndexSource:
    """Read the items of an EmbeddingSet, but not their vectors.

    Raises: DamagedData if there are none, or if two of them have one id.
    """
    manifest = artifacts.open_artifact(uri, EmbeddingSetManifest)
    remedy, names = artifacts.make_again(uri, manifest), vector_files(manifest)
    schema = embedding_schema(manifest.dimensions)
    item_schema = schema.remove(schema.get_field_index(EMBEDDING))
    tables = [read_table(uri, name, manifest, item_schema.names) for name in names]
    items = pa.concat_tables([item_schema.empty_table(), *tables])
    if not len(items):
        raise DamagedData(f"{uri}: an EmbeddingSet without items cannot be indexed; {remedy}")
    require_unique_ids(uri, items, f"make the ids unique, pack again, and {remedy}")
    shards = shard_numbers(items.column(ITEM_ID), num_shards)
    order = np.argsort(shards, kind="stable")
    rows = np.empty(len(items), np.int64)
    rows[order] = np.arange(len(items))
    file_rows = np.split(rows, np.cumsum([len(table) for table in tables])[:-1])
    return IndexSource(
        items=items if num_shards == 1 else items.take(order),
        files=[VectorFile(uri, manifest, *file) for file in zip(names, file_rows, strict=True)],
        shard_sizes=np.bincount(shards, minlength=num_shards).tolist(),
    )


def shard_numbers(item_ids: pa.ChunkedArray, num_shards: int) -> Int64[ndarray, " n"]:
    """The FAISS file of each item, by the CRC-32 of its id."""
    if num_shards == 1:
        return np.zeros(len(item_ids), np.int64)
    ids = (item_id.encode() for chunk in item_ids.chunks for item_id in chunk.to_pylist())
    return np.fromiter((zlib.crc32(item_id) % num_shards for item_id in ids), np.int64, len(item_ids))


def blocks(
    files: Sequence[VectorFile], first_row: int = 0, end_row: int | None = None
) -> Iterator[tuple[Int64[ndarray, " n"], Float32[ndarray, "n d"]]]:
    """Rows and vectors of the files in order, many small files at once; only rows of the range if given."""
    pending: list[tuple[ndarray, ndarray]] = []
    for file in files:
        is_here = file.rows >= first_row
        if end_row is not None:
            is_here &= file.rows < end_row
        if is_here.any():
            pending.append((file.rows[is_here], file.read()[is_here]))
        if sum(len(rows) for rows, _ in pending) >= _BLOCK_ROWS:
            yield _joined(pending)
            pending = []
    if pending:
        yield _joined(pending)


def groups(files: Sequence[VectorFile]) -> list[list[VectorFile]]:
    """The files in order, in groups that are worth a task."""
    grouped: list[list[VectorFile]] = [[]]
    for file in files:
        if sum(len(member.rows) for member in grouped[-1]) >= _GROUP_ROWS:
            grouped.append([])
        grouped[-1].append(file)
    return grouped


def _joined(parts: Sequence[tuple[ndarray, ndarray]]) -> tuple[ndarray, ndarray]:
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([vectors for _, vectors in parts])
