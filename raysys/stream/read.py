"""Shards as Ray Data, through our own source, because Ray's WebDataset reader drops rows silently.

A read task is one window (training) or one shard (embedding). Blocks are bounded in bytes. With
`preserve_order` the complete pipeline keeps their order, so that a batch is a function of its position. A
sample that cannot be used stays a row, without a photo and with a reason.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback

from raysys.cluster.datasource import dataset_of
from raysys.config.schema import StreamConfig
from raysys.errors import MissingError
from raysys.shards.reader import BadSample, ShardRef, missing_shard, open_shard
from raysys.stream.blocks import BlockBuilder
from raysys.stream.order import Window, rows_of, windows

Decode: TypeAlias = Callable[[pa.Table], Any]  # a block of compressed rows -> a block of arrays
_SCHEDULER_PAUSE_S = 0.02
_MAX_TASKS_IN_FLIGHT = 4


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
    """Samples `start` to `stop` of the endless sequence, in order, in blocks of exactly `rows_per_block`.

    Blocks are dealt to the workers in turn (`worker_positions`). If `rows_per_block` divides the batch, every
    number of workers gets the same global batches. Ray deals complete rounds and splits the last one: if the
    number of workers may not divide the number of blocks, let the stream continue for one more round.
    """
    sizes = [shard.num_items for shard in shards]
    plan = list(
        windows(sizes, seed=seed, shards_per_window=section.shuffle_window_shards, start=start, stop=stop)
    )
    rows = _read(
        [functools.partial(_read_window, shards, window, section) for window in plan],
        [window.take for window in plan],
        section,
    ).repartition(target_num_rows_per_block=rows_per_block, strict=True)
    return _decode_blocks(rows, decode, section)


def embedding_stream(shards: Sequence[ShardRef], decode: Decode, section: StreamConfig) -> ray.data.Dataset:
    """Every item of the shards once, in order, decoded; a block has items of one shard only."""
    reads = [functools.partial(_read_shard, shard, number, section) for number, shard in enumerate(shards)]
    rows = _read(reads, [shard.num_items for shard in shards], section)
    return _decode_blocks(rows, decode, section)


def prepare_context() -> None:
    """Set up Ray Data in this process: ordered rows, little output, and a pause in its scheduling loop.

    Every process that makes datasets needs this, not only the driver: Ray Train makes its own in another one.
    """
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True  # batches are a function of position
    context.print_on_execution_start = False
    context.enable_progress_bars = False  # raysys shows one progress bar per stage
    if _SchedulerPause not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(_SchedulerPause)
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)


def execution_options(section: StreamConfig) -> ray.data.ExecutionOptions:
    """Ordered execution within `stream.object_store_megabytes` of the object store."""
    limit = section.object_store_megabytes
    resources = ray.data.ExecutionResources.for_limits(object_store_memory=limit * 2**20 if limit else None)
    return ray.data.ExecutionOptions(preserve_order=True, resource_limits=resources)


class _SchedulerPause(ExecutionCallback):
    """Sleeps in each round of Ray Data's scheduling loop.

    While training is slower than its data, every task has output waiting, and the loop of Ray 2.60 polls
    without a pause: on two cores it used most of one.
    """

    def on_execution_step(self, executor: Any) -> None:
        time.sleep(_SCHEDULER_PAUSE_S)


def _read(
    reads: Sequence[Callable[[], Iterable[pa.Table]]], sizes: Sequence[int], section: StreamConfig
) -> ray.data.Dataset:
    prepare_context()
    ray.data.DataContext.get_current().execution_options = execution_options(section)
    return dataset_of(reads, sizes, concurrency=section.read_concurrency)


def _decode_blocks(rows: ray.data.Dataset, decode: Decode, section: StreamConfig) -> ray.data.Dataset:
    # Actors, not tasks: each decoder imports the tokenizer library once, and idle workers do not.
    return rows.map_batches(
        _Decoder,
        fn_constructor_args=(decode,),
        batch_size=None,
        batch_format="pyarrow",
        # The scheduling loop may sleep when a task ends, so the next tasks must already be queued.
        compute=ray.data.ActorPoolStrategy(
            size=section.decode_concurrency, max_tasks_in_flight_per_actor=_MAX_TASKS_IN_FLIGHT
        ),
    )


class _Decoder:
    def __init__(self, decode: Decode) -> None:
        self._decode = decode

    def __call__(self, block: pa.Table) -> Any:
        return self._decode(block)


def _read_window(shards: Sequence[ShardRef], window: Window, section: StreamConfig) -> Iterator[pa.Table]:
    """The samples of the window's shards in the window's order, read one sample at a time."""
    block = BlockBuilder(section.block_megabytes * 2**20)
    with contextlib.ExitStack() as stack:
        samples = [
            (shard_number, sample_number, read_sample)
            for shard_number in window.shards
            for read_sample in [_open(stack, shards[shard_number])]
            for sample_number in range(shards[shard_number].num_items)
        ]
        for position, row in enumerate(rows_of(window, len(samples)), start=window.position):
            shard_number, sample_number, read_sample = samples[row]
            yield from block.add(
                read_sample(sample_number),
                shards[shard_number],
                (window.epoch, position, shard_number, sample_number),
            )
    yield from block.flush()


def _read_shard(shard: ShardRef, shard_number: int, section: StreamConfig) -> Iterator[pa.Table]:
    """The samples of one shard in stored order."""
    block = BlockBuilder(section.block_megabytes * 2**20)
    with contextlib.ExitStack() as stack:
        read_sample = _open(stack, shard)
        for number in range(shard.num_items):
            yield from block.add(read_sample(number), shard, (0, number, shard_number, number))
    yield from block.flush()


def _open(stack: contextlib.ExitStack, shard: ShardRef) -> Callable[[int], Any]:
    """A function that reads a sample by its number; if the shard is missing, every sample is bad."""
    try:
        return stack.enter_context(open_shard(shard)).read
    except MissingError as error:
        missing: BadSample = missing_shard(error)
        return lambda number: missing
