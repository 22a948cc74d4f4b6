"""Vectors of any model by item id: an EmbeddingSet, or plain Parquet.

Plain Parquet is a file, or a folder of `*.parquet`, with the columns `item_id` and `embedding`. A vector is a
list, of variable or fixed size, of 16-, 32- or 64-bit floats; all have equal size. A vector is usable if it
is finite and not zero: readers normalise it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32
from numpy import ndarray

from raysys import storage
from raysys.artifacts import MANIFEST, EmbeddingSetManifest, InputEntry, as_input, files_uri, open_artifact
from raysys.artifacts.embedding_set import fault_of, vector_files
from raysys.artifacts.intact import require_intact
from raysys.artifacts.manifest import hash_json
from raysys.columns import EMBEDDING, ITEM_ID
from raysys.errors import InputError, MissingError, RaysysError

_EXAMPLES = 3  # item ids that an error message names
_ROWS = 16_384  # read at a time: 84 MB of 1,280 floats


def vectors_input(uri: str) -> InputEntry:
    """The entry with which a run records the vectors. Plain Parquet is hashed, once per process.

    Raises: MissingError if there is nothing at `uri`; InputError if a file is not Parquet with the columns.
    """
    if _is_embedding_set(uri):
        return as_input(uri, EmbeddingSetManifest)
    files = _plain_files(uri)
    for file_uri in files:
        with _open(file_uri):
            pass
    stats = storage.stat_files(files)
    return InputEntry(uri=uri, fingerprint=_fingerprint(tuple(files), tuple(stats)))


def read_ids(uri: str) -> pa.Array:
    """The item ids in the order of `read_vectors`.

    Raises: InputError if an id is missing or occurs more than once; and as `vectors_input`.
    """
    chunks = [
        batch.column(0).cast(pa.large_string())
        for file_uri in _files(uri)
        for batch in _batches(file_uri, [ITEM_ID])
    ]
    ids = pa.chunked_array(chunks, pa.large_string()).combine_chunks()
    if ids.null_count:
        raise InputError(f"{uri}: {ids.null_count} rows have no {ITEM_ID}; remove them, or give them one")
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        first = ", ".join(f"'{item_id}'" for item_id in repeated[:_EXAMPLES].to_pylist())
        raise InputError(
            f"{uri}: {len(repeated)} item ids occur more than once (first {first}); keep one row for each"
        )
    return ids


def read_vectors(uri: str) -> Iterator[Float32[ndarray, "n d"]]:
    """The vectors, normalised, in parts of bounded size.

    Raises: InputError for a vector that is not usable or has another size; DamagedData for files that differ
    from the manifest of an EmbeddingSet; and as `vectors_input`.
    """
    if _is_embedding_set(uri):
        manifest = open_artifact(uri, EmbeddingSetManifest)
        require_intact(uri, manifest, vector_files(manifest))
    dimensions = None
    for file_uri in _files(uri):
        for batch in _batches(file_uri, [ITEM_ID, EMBEDDING]):
            if len(batch):
                vectors = _normalised(file_uri, batch, dimensions)
                dimensions = vectors.shape[1]
                yield vectors


def _is_embedding_set(uri: str) -> bool:
    return storage.exists(storage.join(uri, MANIFEST))


def _files(uri: str) -> list[str]:
    if not _is_embedding_set(uri):
        return _plain_files(uri)
    manifest = open_artifact(uri, EmbeddingSetManifest)
    return [storage.join(files_uri(uri, manifest), name) for name in vector_files(manifest)]


def _plain_files(uri: str) -> list[str]:
    if storage.is_file(uri):
        return [uri]
    if not storage.is_folder(uri):
        raise MissingError(f"{uri}: no such file or folder; check the path")
    names = [name for name in storage.list_files(uri) if name.endswith(".parquet")]
    if not names:
        raise InputError(
            f"{uri}: neither an EmbeddingSet ({MANIFEST}) nor *.parquet in this folder; check the path"
        )
    return [storage.join(uri, name) for name in names]


@functools.lru_cache(maxsize=4)
def _fingerprint(files: tuple[str, ...], stats: tuple[tuple[int, int], ...]) -> str:
    """A hash over the contents in order; `stats` (sizes and times) only make a changed file a new key."""
    return hash_json([storage.sha256_of(file_uri)[1] for file_uri in files])


@contextlib.contextmanager
def _open(file_uri: str) -> Iterator[pq.ParquetFile]:
    """An open Parquet file that has both columns; failures inside the block are errors of one line."""
    try:
        with storage.open_input(file_uri) as stream, pq.ParquetFile(stream) as file:
            _require_columns(file_uri, file.schema_arrow)
            yield file
    except (RaysysError, MemoryError):
        raise
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{file_uri}: not readable as Parquet ({reason}); write the file again") from error


def _require_columns(file_uri: str, schema: pa.Schema) -> None:
    names = schema.names
    if ITEM_ID not in names or EMBEDDING not in names:
        raise InputError(
            f"{file_uri}: needs the columns {ITEM_ID} and {EMBEDDING} "
            f"(found: {', '.join(names) or 'none'}); rename its columns"
        )
    kind = schema.field(EMBEDDING).type
    if not _is_vector(kind):
        raise InputError(f"{file_uri}: {EMBEDDING} has the type {kind}; write lists of floats")


def _is_vector(kind: pa.DataType) -> bool:
    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in checks) and bool(pa.types.is_floating(kind.value_type))


def _batches(file_uri: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with _open(file_uri) as file:
        yield from file.iter_batches(batch_size=_ROWS, columns=columns)


def _normalised(file_uri: str, batch: pa.RecordBatch, dimensions: int | None) -> Float32[ndarray, "n d"]:
    ids, column = batch.column(ITEM_ID), batch.column(EMBEDDING)
    is_fixed = pa.types.is_fixed_size_list(column.type)
    sizes = [column.type.list_size] * len(column) if is_fixed else pc.list_value_length(column).to_pylist()
    expected = dimensions or next((size for size in sizes if size), 0)

    def refuse(rows: Any, fault: str) -> InputError:
        return InputError(
            f"{file_uri}: {len(rows)} of {len(batch)} vectors are not usable (first: that of item "
            f"'{ids[int(rows[0])].as_py()}' {fault}); correct them, or remove their rows"
        )

    if column.null_count:
        raise refuse(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)), "is null")
    others = [row for row, size in enumerate(sizes) if size != expected or not size]
    if others:
        raise refuse(others, f"has {sizes[others[0]]} dimensions, others have {expected}")
    flat = column.flatten().to_numpy(zero_copy_only=False)  # a null becomes a NaN
    vectors = flat.reshape(len(batch), expected).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise refuse(bad, fault_of(vectors[bad[0]]))
    return np.asarray(vectors / lengths[:, None], dtype=np.float32)
