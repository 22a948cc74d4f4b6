"""The actor that embeds a block of pixels and writes it as one Parquet file."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysys import storage
from raysys.columns import (
    DETAIL,
    EMBEDDING,
    IMAGE_OFFSET,
    ITEM_ID,
    LEDGER_SCHEMA,
    PIXELS,
    REASON,
    SHARD,
    SOURCE,
    SPLIT,
    embedding_schema,
)
from raysys.encoder.bundle import open_bundle


class EmbeddingActor:
    """Holds an encoder; each call embeds a block and writes its part of the EmbeddingSet.

    A part's name depends only on its shard and first row, so a repeated attempt overwrites its own output.
    """

    def __init__(
        self, encoder_uri: str, output_uri: str, device: str, precision: str, batch_size: int
    ) -> None:
        self._encoder = open_bundle(encoder_uri, device=device, precision=precision)
        self._output_uri = output_uri
        self._batch_size = batch_size

    def __call__(self, block: pa.Table) -> pa.Table:
        """One row: `num_items` written, and `refused`, the ledger rows of the other items as JSON."""
        is_good = pc.equal(block.column(REASON), "")
        good, refused = block.filter(is_good), block.filter(pc.invert(is_good))
        if len(good):
            self._write(good)
        ledger = pa.table(
            {
                ITEM_ID: refused.column(ITEM_ID),
                REASON: refused.column(REASON),
                DETAIL: refused.column(DETAIL),
                SOURCE: refused.column(SHARD),
            },
            schema=LEDGER_SCHEMA,
        )
        return pa.table({"num_items": [len(good)], "refused": [json.dumps(ledger.to_pylist())]})

    def _write(self, block: pa.Table) -> None:
        size_px = self._encoder.image.size_px
        pixels = np.stack([np.frombuffer(row.as_buffer(), np.uint8) for row in block.column(PIXELS)])
        vectors = self._encoder.embed_pixels(pixels.reshape(-1, size_px, size_px, 3), self._batch_size)
        with storage.writable_file(storage.join(self._output_uri, _part_name(block))) as path:
            pq.write_table(_with_vectors(block, vectors), path)


def part_prefix(split: str, shard_uri: str) -> str:
    """How the names of all parts of a shard begin: `<split>-<shard name without .tar>`."""
    return f"{split}-{shard_uri.rsplit('/', 1)[-1].removesuffix('.tar')}"


def _part_name(block: pa.Table) -> str:
    """`<split>-<shard>-<offset of the first photo>.parquet`."""
    first = block.slice(0, 1).select([SPLIT, SHARD, IMAGE_OFFSET]).to_pylist()[0]
    return f"{part_prefix(first[SPLIT], first[SHARD])}-{first[IMAGE_OFFSET]:012d}.parquet"


def _with_vectors(block: pa.Table, vectors: np.ndarray) -> pa.Table:
    schema = embedding_schema(vectors.shape[1])
    columns = {name: block.column(name) for name in schema.names if name in block.schema.names}
    columns[EMBEDDING] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)
