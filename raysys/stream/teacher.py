"""The teacher's vectors beside the stream: a small file for each shard, found by the number of the shard.

The driver writes them once; a decoder reads a file when the first sample of its shard arrives. A window of
the stream has samples of few shards, so that the memory of a decoder does not grow with the catalogue.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float16
from numpy import ndarray

from raysys import storage
from raysys.columns import EMBEDDING, ITEM_ID, REASON, SHARD_NUMBER
from raysys.errors import DamagedData

_CACHED_SHARDS = 64  # 134 MB of 4,096 items with 256 dimensions


@dataclass(frozen=True)
class TeacherVectors:
    """The folder of the files, and the length of a vector."""

    uri: str
    dimensions: int

    def write(self, shard_number: int, item_ids: pa.Array, vectors: Float16[ndarray, "n d"]) -> None:
        """Write the file of a shard."""
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.dimensions)
        table = pa.table({ITEM_ID: item_ids, EMBEDDING: column})
        with storage.writable_file(self._file(shard_number)) as path:
            pq.write_table(table, path)

    def of_block(self, block: pa.Table) -> Float16[ndarray, "n d"]:
        """The vectors of the rows of a block; zeros for a skipped sample and an item without a vector.

        Raises: MissingError or DamagedData if a file is gone or damaged.
        """
        vectors = np.zeros((len(block), self.dimensions), np.float16)
        columns = (block.column(name).to_pylist() for name in (SHARD_NUMBER, ITEM_ID, REASON))
        for row, (shard_number, item_id, reason) in enumerate(zip(*columns, strict=True)):
            if not reason:
                rows, of_shard = _read(self._file(shard_number))
                if item_id in rows:
                    vectors[row] = of_shard[rows[item_id]]
        return vectors

    def _file(self, shard_number: int) -> str:
        return storage.join(self.uri, f"{shard_number:05d}.parquet")


@functools.lru_cache(maxsize=_CACHED_SHARDS)
def _read(uri: str) -> tuple[dict[str, int], Float16[ndarray, "n d"]]:
    """Item id -> row, and the vectors of the rows."""
    try:
        with storage.open_input(uri) as stream:
            table = pq.read_table(stream, page_checksum_verification=False)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:120]
        raise DamagedData(
            f"{uri}: not readable ({reason}); delete its folder, and `raysys train` writes it again"
        ) from error
    column = table.column(EMBEDDING)
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    ids = table.column(ITEM_ID).to_pylist()
    return {item_id: row for row, item_id in enumerate(ids)}, flat.reshape(-1, column.type.list_size)
