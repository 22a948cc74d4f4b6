"""Shards as Ray Data: a strict source of our own, since Ray's WebDataset reader loses rows in silence.

A read task is one window (training) or one shard (embedding). Blocks come in order; with
`preserve_order` the whole pipeline keeps it, which is what makes batches a function of position.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from raysys.artifacts import canonical_json
from raysys.config.schema import StreamConfig
from raysys.records import (
    ATTRIBUTES,
    EPOCH,
    IMAGE,
    IMAGE_BYTES,
    IMAGE_OFFSET,
    ITEM_ID,
    SHARD,
    SPLIT,
    STREAM_POSITION,
    TITLE,
)
from raysys.stream.order import Window, rows_of, windows
from raysys.stream.tar import ShardRef, StoredItem, read_shard

Decode: TypeAlias = Callable[[pa.Table], Any]  # a block of compressed rows -> a block of arrays
_PAUSE_S = 0.02
_BLOCK_BYTES = 8 << 20  # compressed: a block decodes to some ten times this


def training_stream(
    shards: Sequence[ShardRef],
    decode: Decode,
    section: StreamConfig,
    *,
    seed: int,
    start: int,
    stop: int,
    rows_per_block: int,
) -> ray.data.Dataset:
    """Samples `start` to `stop` of the endless sequence, in blocks of exactly `rows_per_block` in order.

    A block is one worker's share of one step: dealt round-robin they make the same global batches for any
    number of workers.
    """
    prepare_context()
    sizes = [shard.num_items for shard in shards]
    plan = list(
        windows(sizes, seed=seed, shards_per_window=section.shuffle_window_shards, start=start, stop=stop)
    )
    tasks = [_task(functools.partial(_read_window, shards, window), window.take) for window in plan]
    rows = ray.data.read_datasource(
        _Tasks(tasks), override_num_blocks=len(tasks), concurrency=section.read_concurrency
    ).repartition(target_num_rows_per_block=rows_per_block, strict=True)
    return _decoded(rows, decode, section)


def embedding_stream(shards: Sequence[ShardRef], decode: Decode, section: StreamConfig) -> ray.data.Dataset:
    """Every item of the shards once, decoded to pixels; no block crosses a shard."""
    prepare_context()
    tasks = [_task(functools.partial(_read_whole, shard), shard.num_items) for shard in shards]
    rows = ray.data.read_datasource(
        _Tasks(tasks), override_num_blocks=len(tasks), concurrency=section.read_concurrency
    )
    return _decoded(rows, decode, section)


def prepare_context() -> None:
    """Make Ray Data keep the order of rows, keep quiet, and pause between its rounds.

    Here and not at the driver alone: Ray Train makes its datasets in a process of its own.
    """
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True  # batches are a function of position
    context.print_on_execution_start = False
    context.enable_progress_bars = False  # raysys draws one bar a stage itself
    if _Pause not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(_Pause)
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)


class _Pause(ExecutionCallback):
    """A pause in each round of the scheduling loop.

    While training is slower than its data, every task of the stream has output that waits, and the loop of
    Ray 2.60 asks again at once: on two cores it took most of one.
    """

    def on_execution_step(self, executor: Any) -> None:
        time.sleep(_PAUSE_S)


def _decoded(rows: ray.data.Dataset, decode: Decode, section: StreamConfig) -> ray.data.Dataset:
    # Actors, not tasks: a decoder imports a tokenizer library once, not once in every idle worker.
    return rows.map_batches(
        _Decoder,
        fn_constructor_args=(decode,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=section.decode_concurrency),
    )


class _Decoder:
    def __init__(self, decode: Decode) -> None:
        self._decode = decode

    def __call__(self, block: pa.Table) -> Any:
        return self._decode(block)


class _Tasks(Datasource):
    """A Ray Data source that is a list of read tasks."""

    def __init__(self, tasks: list[ReadTask]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray types it so
        self._tasks = tasks

    def get_read_tasks(self, *_: object, **__: object) -> list[ReadTask]:
        return self._tasks

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_name(self) -> str:
        return "Shards"


def _task(read: Callable[[], Iterable[pa.Table]], num_rows: int) -> ReadTask:
    return ReadTask(read, BlockMetadata(num_rows=num_rows, size_bytes=None, exec_stats=None))


def _read_window(shards: Sequence[ShardRef], window: Window) -> Iterator[pa.Table]:
    stored = [(item, shards[number]) for number in window.shards for item in read_shard(shards[number])]
    ordered = (stored[row] for row in rows_of(window, len(stored)))
    return _blocks(ordered, window.epoch, window.position)


def _read_whole(shard: ShardRef) -> Iterator[pa.Table]:
    return _blocks(((item, shard) for item in read_shard(shard)), epoch=0, position=0)


def _blocks(items: Iterable[tuple[StoredItem, ShardRef]], epoch: int, position: int) -> Iterator[pa.Table]:
    """Arrow blocks of bounded size, whatever the size of the photos."""
    rows: list[dict[str, object]] = []
    num_bytes = 0
    for number, (stored, shard) in enumerate(items, start=position):
        rows.append({**_row(stored, shard), EPOCH: epoch, STREAM_POSITION: number})
        num_bytes += len(stored.item.image)
        if num_bytes >= _BLOCK_BYTES:
            yield pa.Table.from_pylist(rows, schema=_SCHEMA)
            rows, num_bytes = [], 0
    if rows:
        yield pa.Table.from_pylist(rows, schema=_SCHEMA)


def _row(stored: StoredItem, shard: ShardRef) -> dict[str, object]:
    return {
        ITEM_ID: stored.item.item_id,
        TITLE: stored.item.title,
        ATTRIBUTES: canonical_json(stored.item.attributes),
        SPLIT: shard.split,
        SHARD: shard.uri,
        IMAGE_OFFSET: stored.image_offset,
        IMAGE_BYTES: len(stored.item.image),
        IMAGE: stored.item.image,
    }


_SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        (TITLE, pa.string()),
        (ATTRIBUTES, pa.string()),
        (SPLIT, pa.string()),
        (SHARD, pa.string()),
        (IMAGE_OFFSET, pa.int64()),
        (IMAGE_BYTES, pa.int64()),
        (IMAGE, pa.large_binary()),
        (EPOCH, pa.int64()),
        (STREAM_POSITION, pa.int64()),
    ]
)
