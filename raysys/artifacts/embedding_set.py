"""Read an EmbeddingSet as tables and arrays, and check vectors.

A vector is usable if it is finite and its length is 1 within `UNIT_TOLERANCE`. Every reader of an
EmbeddingSet gets usable vectors only: an index lists an item with a NaN nowhere, and one with an infinite
value on every shelf.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys import storage
from raysys.artifacts import EmbeddingSetManifest, files_uri, make_again, open_artifact
from raysys.artifacts.intact import read_table
from raysys.columns import EMBEDDING, ITEM_ID, SHARD, SPLIT, embedding_schema
from raysys.errors import DamagedData

LEDGER = "ledger.parquet"  # items that could not be embedded, with the reason
_EXAMPLES = 3  # item ids, and shards of each, that an error message names
UNIT_TOLERANCE = 1e-3  # a cosine is wrong by at most this share; normalising in float32 errs by 1e-6


def vector_files(manifest: EmbeddingSetManifest) -> list[str]:
    """The names of the files with vectors, in order."""
    return sorted(name for name in manifest.files if name != LEDGER)


def read_embeddings(uri: str, splits: Sequence[str] | None = None) -> pa.Table:
    """The rows of an EmbeddingSet in the order of its files; only those of `splits` if given.

    Raises: DamagedData for a file that cannot be read, and for a vector that is not usable.
    """
    manifest = open_artifact(uri, EmbeddingSetManifest)
    tables = [embedding_schema(manifest.dimensions).empty_table()]
    for name in vector_files(manifest):
        table = read_part(uri, manifest, name)
        tables.append(table.filter(pc.is_in(table[SPLIT], pa.array(splits))) if splits else table)
    return pa.concat_tables(tables)


def read_part(uri: str, manifest: EmbeddingSetManifest, name: str) -> pa.Table:
    """The rows of one file of an EmbeddingSet. Raises: as `read_embeddings`."""
    file_uri = storage.join(files_uri(uri, manifest), name)
    schema = embedding_schema(manifest.dimensions)
    table = read_table(uri, name, manifest)
    if not table.schema.equals(schema):
        raise DamagedData(
            f"{file_uri}: its columns are not those of an EmbeddingSet of {manifest.dimensions} dimensions "
            f"(found: {', '.join(f'{field.name} {field.type}' for field in table.schema)}); "
            f"{make_again(uri, manifest)}"
        )
    _require_usable(file_uri, table, make_again(uri, manifest))
    return table


def refused_ids(uri: str) -> set[str]:
    """The ids of the items in the ledger of an EmbeddingSet."""
    manifest = open_artifact(uri, EmbeddingSetManifest)
    if LEDGER not in manifest.files:
        return set()
    return set(read_table(uri, LEDGER, manifest, [ITEM_ID]).column(ITEM_ID).to_pylist())


def vectors_of(table: pa.Table) -> Float32[ndarray, "n d"]:
    """The vectors of the rows of a table."""
    column = table.column(EMBEDDING)
    dimensions = column.type.list_size
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(-1, dimensions), dtype=np.float32)


def bad_rows(vectors: Float32[ndarray, "n d"]) -> Int64[ndarray, " bad"]:
    """The rows whose vector is not usable."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        return np.flatnonzero(~(np.abs(lengths - 1.0) <= UNIT_TOLERANCE))  # NaN is within no tolerance


def fault_of(vector: Float32[ndarray, " d"]) -> str:
    """Why a vector is not usable, as the end of a sentence."""
    if np.isnan(vector).any():
        return "has a NaN"
    if np.isinf(vector).any():
        return "has an infinite value"
    if not vector.any():
        return "has only zeros"
    return f"has length {np.linalg.norm(vector.astype(np.float64)):.6g} instead of 1"


def require_unique_ids(uri: str, table: pa.Table, remedy: str) -> None:
    """Check that a table of items has every item id once.

    Raises: DamagedData that names the first repeated ids and their shards.
    """
    counts = pc.value_counts(table.column(ITEM_ID))
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
    if repeated:
        first = "; ".join(
            f"'{item_id}' in {_shards_with(table, item_id)}" for item_id in repeated[:_EXAMPLES]
        )
        raise DamagedData(f"{uri}: {len(repeated)} item ids occur more than once (first {first}); {remedy}")


def _shards_with(table: pa.Table, item_id: str) -> str:
    shards = table.filter(pc.equal(table.column(ITEM_ID), item_id)).column(SHARD).to_pylist()
    return ", ".join(dict.fromkeys(shards[:_EXAMPLES]))


def _require_usable(file_uri: str, table: pa.Table, remedy: str) -> None:
    """Check the vectors of a file. Raises: DamagedData that names the first item."""
    if table.column(EMBEDDING).null_count:
        bad = np.flatnonzero(table.column(EMBEDDING).is_null().to_numpy())
        fault = "has none"
    else:
        vectors = vectors_of(table)
        bad = bad_rows(vectors)
        fault = fault_of(vectors[bad[0]]) if len(bad) else ""
    if len(bad):
        first = table.column(ITEM_ID)[int(bad[0])].as_py()
        raise DamagedData(
            f"{file_uri}: {len(bad)} of {len(table)} vectors are not usable (first: that of item '{first}' "
            f"{fault}); {remedy}"
        )
