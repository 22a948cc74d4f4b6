"""Vectors of items by any encoder, ours or not: an EmbeddingSet, or Parquet with `item_id` and `embedding`.

A plain source is one Parquet file or a folder of them. `item_id` is text or an integer; `embedding` is a list
of numbers (float16, float32, ..) of one length in all rows, of any dimension. Vectors need not have length 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32
from numpy import ndarray

from raysys import storage
from raysys.artifacts.directory import MANIFEST, as_input, files_uri, open_artifact
from raysys.artifacts.embedding_set import fault_of, read_part, vector_files
from raysys.artifacts.manifest import EmbeddingSetManifest, InputEntry, hash_json
from raysys.columns import EMBEDDING, ITEM_ID
from raysys.errors import InputError, MissingError, did_you_mean

_ROWS_AT_ONCE = 8192  # 32 MB of 1,024 float32
# Of a column. By default pyarrow 26 has the columns of the whole file in memory.
_BUFFER_BYTES = 4 << 20


def read_vectors(
    uri: str, item_ids: Collection[str] | None = None
) -> tuple[list[str], Float32[ndarray, "items dim"]]:
    """The ids and L2-normalised vectors of a source, in its order; of `item_ids` only those that it has.

    Rows of other items are not checked, and only one batch of them is in memory.
    Raises: MissingError if there is no source; InputError for a missing column, a column of another type, no
    rows, two rows with one id, vectors of unequal lengths, and a vector that is null, not finite or zero;
    DamagedData for a damaged EmbeddingSet.
    """
    wanted = None if item_ids is None else pa.array(sorted(item_ids), pa.string())
    parts = list(_unit_parts(uri, wanted))
    found_ids = [item_id for ids, _ in parts for item_id in ids.to_pylist()]
    _require_unique(uri, pa.array(found_ids, pa.string()))
    return found_ids, np.concatenate([part for _, part in parts]) if parts else np.empty((0, 0), np.float32)


def read_item_ids(uri: str) -> pa.Array:
    """The ids of a source in its order. Raises: as `read_vectors`, but for the vectors."""
    ids = pa.chunked_array([ids for _, ids, _ in _batches(uri, [ITEM_ID])], pa.string()).combine_chunks()
    _require_rows(uri, len(ids))
    _require_unique(uri, ids)
    return ids


def iter_vectors(uri: str) -> Iterator[Float32[ndarray, "n dim"]]:
    """The L2-normalised vectors of a source, in its order and in parts of bounded size.

    Raises: as `read_vectors`, but for repeated ids.
    """
    return (part for _, part in _unit_parts(uri))


def _unit_parts(
    uri: str, wanted: pa.Array | None = None
) -> Iterator[tuple[pa.Array, Float32[ndarray, "n dim"]]]:
    """Ids and unit vectors of the next rows; with `wanted` only those of these ids."""
    dimensions, num_rows = None, 0
    for where, ids, batch in _batches(uri, [ITEM_ID, EMBEDDING]):
        num_rows += len(batch)
        if wanted is not None:
            is_wanted = pc.is_in(ids, wanted)
            batch, ids = batch.filter(is_wanted), ids.filter(is_wanted)
        if len(batch):
            part = _unit_vectors(where, ids.to_pylist(), batch.column(EMBEDDING))
            if part.shape[1] != (dimensions := dimensions or part.shape[1]):
                raise _unequal_lengths(where, dimensions, part.shape[1], ids[0].as_py())
            yield ids, part
    _require_rows(uri, num_rows)


def space_id_of(source: InputEntry) -> str:
    """The embedding space of a source: that of an EmbeddingSet, else a hash of its content.

    The encoder of plain vectors is not known, so two such sources are never compared.
    """
    if _is_embedding_set(source.uri):
        return open_artifact(source.uri, EmbeddingSetManifest).space_id
    return source.fingerprint


def vectors_input(uri: str) -> InputEntry:
    """The entry with which an artifact records vectors as an input; files are checked by their columns.

    Raises: as `require_vectors`.
    """
    require_vectors(uri)
    if _is_embedding_set(uri):
        return as_input(uri, EmbeddingSetManifest)
    hashes = [storage.sha256_of(file_uri)[1] for file_uri in _parquet_files(uri)]
    return InputEntry(uri=uri, fingerprint=hash_json(hashes))


def require_vectors(uri: str) -> None:
    """Check that a source exists and that each of its files has the columns; no vector is read.

    Raises: MissingError, InputError; DamagedData for an EmbeddingSet that is not complete.
    """
    if _is_embedding_set(uri):
        open_artifact(uri, EmbeddingSetManifest)
        return
    for file_uri in _parquet_files(uri):
        with _opened(file_uri):
            pass


def _is_embedding_set(uri: str) -> bool:
    return storage.exists(storage.join(uri, MANIFEST))


def _parquet_files(uri: str) -> list[str]:
    """The file itself, or the Parquet files of a folder in the order of their names."""
    if not storage.exists(uri):
        raise MissingError(
            f"{uri}: no such vectors; an EmbeddingSet, or a Parquet file or folder with {ITEM_ID} and "
            f"{EMBEDDING} is needed"
        )
    if not storage.is_folder(uri):
        return [uri]
    names = sorted(name for name in storage.list_files(uri) if name.endswith(".parquet"))
    if not names:
        raise MissingError(f"{uri}: no Parquet file in this folder; check the path")
    return [storage.join(uri, name) for name in names]


def _batches(uri: str, columns: list[str]) -> Iterator[tuple[str, pa.Array, pa.Table]]:
    """The URI of the file, the ids as text, and a table of the next rows."""
    for where, table in _tables(uri, columns):
        ids = pc.cast(table.column(ITEM_ID), pa.string()).combine_chunks()
        if ids.null_count:
            raise InputError(f"{where}: {ids.null_count} rows have no {ITEM_ID}; drop or fill them")
        yield where, ids, table


def _tables(uri: str, columns: list[str]) -> Iterator[tuple[str, pa.Table]]:
    if _is_embedding_set(uri):
        manifest = open_artifact(uri, EmbeddingSetManifest)
        for name in vector_files(manifest):
            yield storage.join(files_uri(uri, manifest), name), read_part(uri, manifest, name).select(columns)
        return
    for file_uri in _parquet_files(uri):
        with _opened(file_uri) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
                yield file_uri, pa.Table.from_batches([batch])


@contextlib.contextmanager
def _opened(file_uri: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file whose columns are checked. Raises: InputError."""
    try:
        with (
            storage.open_input(file_uri) as stream,
            pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file,
        ):
            _check_schema(file_uri, file.schema_arrow)
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{file_uri}: not a readable Parquet file ({reason}); write it again") from error


def _check_schema(where: str, schema: pa.Schema) -> None:
    for name, what, is_accepted in (
        (ITEM_ID, "text or an integer", _is_id),
        (EMBEDDING, "a list of numbers", _is_list_of_numbers),
    ):
        if name not in schema.names:
            found = ", ".join(schema.names) or "none"
            hint = did_you_mean(name, schema.names) or "; rename or add it"
            raise InputError(f"{where}: no column '{name}' (found: {found}){hint}")
        dtype = schema.field(name).type
        if not is_accepted(dtype):
            raise InputError(f"{where}: column '{name}' is {dtype}, should be {what}; cast it")


def _is_id(dtype: pa.DataType) -> bool:
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_integer(dtype))


def _is_list_of_numbers(dtype: pa.DataType) -> bool:
    is_list = pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)
    return bool(is_list and (pa.types.is_floating(dtype.value_type) or pa.types.is_integer(dtype.value_type)))


def _unit_vectors(where: str, item_ids: list[str], column: pa.ChunkedArray) -> Float32[ndarray, "n dim"]:
    """The rows of a column, divided by their lengths. Raises: InputError that names the first bad item."""
    if column.null_count:
        first = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise _unusable(where, column.null_count, item_ids[first], "has none")
    lengths = _list_lengths(column)
    unequal = np.flatnonzero(lengths != lengths[0])
    if len(unequal):
        raise _unequal_lengths(where, lengths[0], lengths[unequal[0]], item_ids[unequal[0]])
    flat = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
    vectors: ndarray = flat.reshape(len(item_ids), -1).astype(
        np.float64
    )  # the square of a large float32 is infinite
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0))[:, 0])
    if len(bad):
        fault = fault_of(vectors[bad[0]].astype(np.float32)) if vectors.shape[1] else "has no numbers"
        raise _unusable(where, len(bad), item_ids[bad[0]], fault)
    return np.asarray(vectors / norms, dtype=np.float32)


def _list_lengths(column: pa.ChunkedArray) -> ndarray:
    if pa.types.is_fixed_size_list(column.type):
        return np.full(len(column), column.type.list_size)
    return np.asarray(pc.list_value_length(column).to_numpy())


def _require_rows(uri: str, num_rows: int) -> None:
    if not num_rows:
        raise InputError(f"{uri}: no rows; vectors of items are needed")


def _require_unique(uri: str, item_ids: pa.Array) -> None:
    counts = pc.value_counts(item_ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        raise InputError(
            f"{uri}: {len(repeated)} item ids occur more than once (first '{repeated[0]}'); "
            "keep one row of each"
        )


def _unusable(where: str, num_bad: int, item_id: str, fault: str) -> InputError:
    return InputError(
        f"{where}: {num_bad} vectors are not usable (first: that of item '{item_id}' {fault}); "
        "drop or replace them"
    )


def _unequal_lengths(where: str, expected: int, got: int, item_id: str) -> InputError:
    return InputError(
        f"{where}: the vector of item '{item_id}' has {got} numbers, others have {expected}; "
        "write vectors of one encoder"
    )
