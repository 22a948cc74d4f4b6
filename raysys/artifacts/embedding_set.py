"""Read an EmbeddingSet as tables and arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32
from numpy import ndarray

from raysys import storage
from raysys.artifacts import EmbeddingSetManifest, open_artifact
from raysys.columns import EMBEDDING, SPLIT

LEDGER = "ledger.parquet"  # items that could not be embedded, with the reason


def vector_files(manifest: EmbeddingSetManifest) -> list[str]:
    """The names of the files with vectors, in order."""
    return sorted(name for name in manifest.files if name != LEDGER)


def read_embeddings(uri: str, splits: Sequence[str] | None = None) -> pa.Table:
    """The rows of an EmbeddingSet in the order of its files; only those of `splits` if given."""
    manifest = open_artifact(uri, EmbeddingSetManifest)
    tables = []
    for name in vector_files(manifest):
        with storage.open_input(storage.join(uri, name)) as stream:
            table = pq.read_table(stream)
        tables.append(table.filter(pc.is_in(table[SPLIT], pa.array(splits))) if splits else table)
    return pa.concat_tables(tables)


def vectors_of(table: pa.Table) -> Float32[ndarray, "n d"]:
    """The vectors of the rows of a table."""
    column = table.column(EMBEDDING)
    dimensions = column.type.list_size
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(-1, dimensions), dtype=np.float32)
