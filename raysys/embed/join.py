"""Vectors that were made elsewhere as an EmbeddingSet: joined with the items of the shards by item id.

The source has its items in any order. The driver copies their vectors into a temporary file in the order of
the shards, 4 bytes a number, so that its memory has only ids. A task for each shard gets its vectors, reads
its photos for their places and content hashes, without decoding them, and writes its parts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, InputEntry
from raysys.artifacts.vectors import iter_vectors, read_item_ids, space_id_of
from raysys.columns import CONTENT_HASH, DETAIL, IMAGE, ITEM_ID, REASON, TITLE, content_hash
from raysys.config.schema import StreamConfig
from raysys.embed.parts import (
    incomplete_shards,
    ledger_rows,
    part_name,
    publish_embedding_set,
    require_few_refused,
    write_ledger,
    write_part,
)
from raysys.embed.unique import require_unique_vectors
from raysys.errors import InputError
from raysys.parallel import Parallel
from raysys.shards.reader import ShardRef, item_ids
from raysys.stream.read import read_blocks
from raysys.tracking import logs

NO_VECTOR = "no_vector"  # the source has no vector of this item
_EXAMPLES = 3  # item ids that a message names
_FLOAT_BYTES = 4
_Written: TypeAlias = tuple[int, list[dict[str, str]]]


@dataclass(frozen=True)
class _VectorSpace:
    space_id: str
    dimensions: int


@dataclass(frozen=True)
class _ShardVectors:
    """A shard, and the vectors of those of its items that have one."""

    shard: ShardRef
    item_ids: pa.Array
    vectors: Float32[ndarray, "n d"]


def publish_joined(
    spec: ArtifactSpec,
    source: InputEntry,
    shards: Sequence[ShardRef],
    stream: StreamConfig,
    parallel: Parallel,
) -> EmbeddingSetManifest:
    """Publish the vectors of `source` for the items of the shards; after a crash only incomplete shards are
    read again.

    Items without a vector go to the ledger, as do samples that are damaged; vectors of other items are left
    out. Raises: InputError if no item has a vector, or more than `stream.max_bad_fraction` have none, and as
    `read_vectors`; DamagedData if two items have one id, or if the share of refused items is above that.
    """
    started = time.monotonic()
    folder = artifacts.begin_version(spec)
    uri = storage.join(spec.uri, folder)
    ids = [item_ids(shard).cast(pa.large_string()) for shard in shards]
    incomplete = set(incomplete_shards(uri, shards))
    with tempfile.TemporaryFile() as spool:
        logs.log.info("    embed  reading the vectors of %s", source.uri)
        has_vector, num_other, dimensions = _spool_vectors(
            source.uri, pa.concat_arrays(ids), stream.max_bad_fraction, spool
        )
        pieces = _shard_vectors(shards, ids, has_vector, dimensions, spool)
        pieces = (piece for piece in pieces if piece.shard in incomplete)
        total = sum(shard.num_items for shard in incomplete)
        refused = _write_shards(partial(_write_shard, uri, source.uri, stream), pieces, total, parallel)
    require_unique_vectors(uri)
    require_few_refused(refused, len(has_vector), stream.max_bad_fraction)
    write_ledger(uri, refused)
    space = _VectorSpace(space_id_of(source), dimensions)
    seconds = time.monotonic() - started
    manifest = publish_embedding_set(spec, folder, space, seconds, num_refused=len(refused))
    logs.log.info(
        "    embed  %s", _summary_line(manifest, len(has_vector) - int(has_vector.sum()), num_other)
    )
    return manifest


def _spool_vectors(
    uri: str, wanted: pa.Array, max_bad_fraction: float, spool: IO[bytes]
) -> tuple[ndarray, int, int]:
    """Write the vectors of the items `wanted` to a file, each at the position of its item.

    Returns whether each item has a vector, the number of vectors of other items, and the dimensions.
    """
    ids = read_item_ids(uri)
    found = pc.fill_null(pc.index_in(ids, value_set=wanted), -1)
    positions: Int64[ndarray, " rows"] = np.asarray(found.to_numpy(), np.int64)
    has_vector = np.zeros(len(wanted), bool)
    has_vector[positions[positions >= 0]] = True
    _require_vectors(uri, wanted, has_vector, ids, max_bad_fraction)
    first, dimensions = 0, 0
    for vectors in iter_vectors(uri):
        part = positions[first : first + len(vectors)]
        first, dimensions = first + len(vectors), vectors.shape[1]
        for position, vector in zip(part.tolist(), vectors, strict=True):
            if position >= 0:
                spool.seek(position * dimensions * _FLOAT_BYTES)
                spool.write(vector.tobytes())
    spool.truncate(len(wanted) * dimensions * _FLOAT_BYTES)  # with zeros after the last vector
    return has_vector, int((positions < 0).sum()), dimensions


def _require_vectors(
    uri: str, wanted: pa.Array, has_vector: ndarray, ids: pa.Array, max_bad_fraction: float
) -> None:
    """Check the number of items without a vector before a shard is read. Raises: InputError."""
    num_missing = len(wanted) - int(has_vector.sum())
    if num_missing == len(wanted):
        raise InputError(
            f"embed.vectors: {uri}: no item in common: it has {len(ids)} vectors (first of '{ids[0]}'), the "
            f"shards have {len(wanted)} items (first '{wanted[0]}'); write the item ids of the catalogue"
        )
    if num_missing > max_bad_fraction * len(wanted):
        absent = wanted.filter(pa.array(~has_vector))[:_EXAMPLES].to_pylist()
        named = ", ".join(f"'{item_id}'" for item_id in absent)
        raise InputError(
            f"embed.vectors: {uri}: {num_missing} of {len(wanted)} items have no vector (first {named}), "
            f"above stream.max_bad_fraction {max_bad_fraction:g}; add them, or raise the fraction"
        )


def _shard_vectors(
    shards: Sequence[ShardRef],
    ids: Sequence[pa.Array],
    has_vector: ndarray,
    dimensions: int,
    spool: IO[bytes],
) -> Iterator[_ShardVectors]:
    """The shards in order, with their vectors from the file."""
    first = 0
    for shard, shard_ids in zip(shards, ids, strict=True):
        is_here = has_vector[first : first + len(shard_ids)]
        spool.seek(first * dimensions * _FLOAT_BYTES)
        data = spool.read(len(shard_ids) * dimensions * _FLOAT_BYTES)
        vectors = np.frombuffer(data, np.float32).reshape(len(shard_ids), dimensions)
        yield _ShardVectors(shard, shard_ids.filter(pa.array(is_here)), vectors[is_here])
        first += len(shard_ids)


def _write_shards(
    write_shard: Callable[[_ShardVectors], _Written],
    pieces: Iterator[_ShardVectors],
    total: int,
    parallel: Parallel,
) -> list[dict[str, str]]:
    """Write the parts of all shards; the ledger rows of the items that are not in them."""
    num_done, refused = 0, list[dict[str, str]]()
    with logs.progress("embed", total) as advance:
        for num_read, ledger in parallel(write_shard, pieces):
            num_done += num_read
            refused += ledger
            advance(num_done)
    return refused


def _write_shard(uri: str, source_uri: str, stream: StreamConfig, piece: _ShardVectors) -> _Written:
    """Write the parts of a shard; the number of its samples, and the ledger rows of those left out."""
    rows = {item_id: row for row, item_id in enumerate(piece.item_ids.to_pylist())}
    num_read, refused = 0, list[dict[str, str]]()
    for block in read_blocks(piece.shard, 0, stream):
        num_read += len(block)
        items = _with_reasons(_with_content_hashes(block), rows, source_uri)
        has_vector = pc.equal(items.column(REASON), "")
        refused += ledger_rows(items, pc.invert(has_vector))
        items = items.filter(has_vector)
        if len(items):
            vectors = piece.vectors[[rows[item_id] for item_id in items.column(ITEM_ID).to_pylist()]]
            write_part(storage.join(uri, part_name(items)), items, vectors)
    return num_read, refused


def _with_content_hashes(block: pa.Table) -> pa.Table:
    """The block with content hashes in place of the photos."""
    photos, titles = block.column(IMAGE), block.column(TITLE).to_pylist()
    hashes = [content_hash(photos[row].as_buffer(), title) for row, title in enumerate(titles)]
    return block.drop_columns([IMAGE]).append_column(CONTENT_HASH, pa.array(hashes, pa.string()))


def _with_reasons(block: pa.Table, rows: dict[str, int], source_uri: str) -> pa.Table:
    """The block with a reason in every row without a vector; a damaged sample has its own."""
    reasons, details = block.column(REASON).to_pylist(), block.column(DETAIL).to_pylist()
    for row, item_id in enumerate(block.column(ITEM_ID).to_pylist()):
        if not reasons[row] and item_id not in rows:
            reasons[row], details[row] = NO_VECTOR, f"{source_uri} has no vector of it"
    block = block.drop_columns([REASON, DETAIL])
    block = block.append_column(REASON, pa.array(reasons, pa.string()))
    return block.append_column(DETAIL, pa.array(details, pa.string()))


def _summary_line(manifest: EmbeddingSetManifest, num_missing: int, num_other: int) -> str:
    """`900 items have a vector of 64 dimensions, 3 have none; 120 vectors of other items are left out`."""
    return (
        f"{manifest.num_items:,} items have a vector of {manifest.dimensions} dimensions, {num_missing:,} "
        f"have none; {num_other:,} vectors of other items are left out"
    )
