"""Samples as Arrow blocks of bounded size, independent of the size of the photos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from raysys.artifacts import canonical_json
from raysys.columns import (
    ATTRIBUTES,
    DETAIL,
    EPOCH,
    GROUP,
    IMAGE,
    IMAGE_BYTES,
    IMAGE_OFFSET,
    ITEM_ID,
    REASON,
    SAMPLE_NUMBER,
    SHARD,
    SHARD_NUMBER,
    SPLIT,
    STREAM_POSITION,
    TITLE,
)
from raysys.config.schema import StreamConfig
from raysys.shards.reader import BadSample, Item, ShardRef
from raysys.stream.order import choose_rows_per_block

SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        (TITLE, pa.string()),
        (ATTRIBUTES, pa.string()),
        (GROUP, pa.string()),
        (IMAGE, pa.large_binary()),
        (IMAGE_OFFSET, pa.int64()),
        (IMAGE_BYTES, pa.int64()),
        (REASON, pa.string()),
        (DETAIL, pa.string()),
        (SPLIT, pa.string()),
        (SHARD, pa.string()),
        (EPOCH, pa.int64()),
        (STREAM_POSITION, pa.int64()),
        (SHARD_NUMBER, pa.int64()),
        (SAMPLE_NUMBER, pa.int64()),
    ]
)


def rows_per_block(
    shards: Sequence[ShardRef],
    section: StreamConfig,
    *,
    batch_size: int,
    workers: int,
    is_elastic: bool = False,
) -> int:
    """The block size of `training_stream`, from the number of workers and the mean size of a sample.

    `is_elastic`: the run may continue with fewer workers.
    """
    sample_bytes = sum(shard.live_bytes for shard in shards) / sum(shard.num_items for shard in shards)
    block_bytes = section.block_megabytes * 2**20
    return choose_rows_per_block(
        batch_size, workers, is_elastic=is_elastic, sample_bytes=sample_bytes, block_bytes=block_bytes
    )


class BlockBuilder:
    """Collects rows and yields a block as soon as its photos fill `block_bytes`."""

    def __init__(self, block_bytes: int) -> None:
        self._block_bytes = block_bytes
        self._rows: list[tuple[Any, ...]] = []
        self._num_bytes = 0

    def add(
        self, sample: Item | BadSample, shard: ShardRef, coordinates: tuple[int, int, int, int]
    ) -> Iterator[pa.Table]:
        """Add a sample; `coordinates` are its epoch, stream position, shard number and sample number."""
        if isinstance(sample, BadSample):
            values: tuple[Any, ...] = (sample.key, "", "{}", "", b"", 0, 0, sample.reason, sample.detail)
        else:
            attributes = canonical_json(sample.attributes)
            values = (sample.item_id, sample.title, attributes, sample.group)
            values += (sample.image, sample.image_offset, len(sample.image), "", "")
            self._num_bytes += len(sample.image)
        self._rows.append((*values, shard.split, shard.uri, *coordinates))
        if self._num_bytes >= self._block_bytes:
            yield from self.flush()

    def flush(self) -> Iterator[pa.Table]:
        """Yield the rows added since the last block, if there are any."""
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
            yield pa.Table.from_arrays(arrays, schema=SCHEMA)
            self._rows, self._num_bytes = [], 0
