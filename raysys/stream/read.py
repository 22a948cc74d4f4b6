"""Shards as Ray Data, through our own source, because Ray's WebDataset reader drops rows silently.

A read task is one window (training) or one shard (embedding). Blocks are bounded in bytes. With
`preserve_order` the complete pipeline keeps their order, so that a batch is a function of its position. A
sample that cannot be used stays a row, without a photo and with a reason.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import ray.data

from raysys.cluster.datasource import dataset_of
from raysys.config.schema import StreamConfig
from raysys.errors import MissingError
from raysys.parallel import map_in_threads
from raysys.shards.reader import BadSample, ShardRef, missing_shard, open_shard
from raysys.stream.blocks import BlockBuilder
from raysys.stream.concurrency import Concurrency
from raysys.stream.order import Window, rows_of, windows
from raysys.stream.waiting import WaitInDriver, WaitListener
from raysys.stream.watch import StreamWatch, watch

Decode: TypeAlias = Callable[[pa.Table], Any]  # a block of compressed rows -> a block of arrays
_MAX_TASKS_IN_FLIGHT = 4
_LOWEST_PRIORITY = 19


def training_stream(
    shards: Sequence[ShardRef],
    decode: Decode,
    section: StreamConfig,
    concurrency: Concurrency,
    *,
    seed: int,
    start: int,
    stop: int,
    rows_per_block: int,
    listener: WaitListener | None = None,
) -> ray.data.Dataset:
    """Samples `start` to `stop` of the endless sequence, in order, in blocks of exactly `rows_per_block`.

    Blocks are dealt to the workers in turn (`worker_positions`). If `rows_per_block` divides the batch, every
    number of workers gets the same global batches. Ray deals complete rounds and splits the last one: if the
    number of workers may not divide the number of blocks, let the stream continue for one more round. The
    order does not depend on `concurrency`. `listener` receives what the stream waits for; by default, a first
    block that does not come is an error of its consumer.
    """
    sizes = [shard.num_items for shard in shards]
    plan = list(
        windows(sizes, seed=seed, shards_per_window=section.shuffle_window_shards, start=start, stop=stop)
    )
    rows = _read(
        [functools.partial(_read_window, shards, window, section) for window in plan],
        [window.take for window in plan],
        section,
        concurrency,
    ).repartition(target_num_rows_per_block=rows_per_block, strict=True)
    # A training may pause for long, and Ray ends a stream from which nobody takes a block for half an hour.
    rows.context.execution_no_progress_timeout_s = -1
    watch(rows, listener or WaitInDriver("train", section.first_batch_timeout_s))
    return _decode_blocks(rows, decode, concurrency)


def embedding_stream(
    shards: Sequence[ShardRef], decode: Decode, section: StreamConfig, concurrency: Concurrency
) -> ray.data.Dataset:
    """Every item of the shards once, in order, decoded; a block has items of one shard only."""
    reads = [functools.partial(read_blocks, shard, number, section) for number, shard in enumerate(shards)]
    rows = _read(reads, [shard.num_items for shard in shards], section, concurrency)
    watch(rows, WaitInDriver("embed", section.first_batch_timeout_s))
    return _decode_blocks(rows, decode, concurrency)


def read_blocks(shard: ShardRef, shard_number: int, section: StreamConfig) -> Iterator[pa.Table]:
    """The samples of one shard in stored order, as blocks of compressed photos and titles."""
    block = BlockBuilder(section.block_megabytes * 2**20)
    with contextlib.ExitStack() as stack:
        read_sample = _open(stack, shard)
        for number in range(shard.num_items):
            yield from block.add(read_sample(number), shard, (0, number, shard_number, number))
    yield from block.flush()


def prepare_context() -> None:
    """Set up Ray Data in this process: ordered rows, little output, and a watch over every stream.

    Every process that makes datasets needs this, not only the driver: Ray Train makes its own in another one.
    Warnings of Ray Data about a stream that waits reach its listener in spite of the log level.
    """
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True  # batches are a function of position
    context.print_on_execution_start = False
    context.enable_progress_bars = False  # raysys shows one progress bar per stage
    if StreamWatch not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(StreamWatch)
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)


def execution_options(section: StreamConfig) -> ray.data.ExecutionOptions:
    """Ordered execution within `stream.object_store_megabytes` of the object store."""
    limit = section.object_store_megabytes
    resources = ray.data.ExecutionResources.for_limits(object_store_memory=limit * 2**20 if limit else None)
    return ray.data.ExecutionOptions(preserve_order=True, resource_limits=resources)


def _read(
    reads: Sequence[Callable[[], Iterable[pa.Table]]],
    sizes: Sequence[int],
    section: StreamConfig,
    concurrency: Concurrency,
) -> ray.data.Dataset:
    prepare_context()
    ray.data.DataContext.get_current().execution_options = execution_options(section)
    return dataset_of(reads, sizes, concurrency=concurrency.readers)


def _decode_blocks(rows: ray.data.Dataset, decode: Decode, concurrency: Concurrency) -> ray.data.Dataset:
    # Actors, not tasks: each decoder imports the tokenizer library once, and idle workers do not.
    return rows.map_batches(
        _Decoder,
        fn_constructor_args=(decode,),
        batch_size=None,
        batch_format="pyarrow",
        # The scheduling loop may sleep when a task ends, so the next tasks must already be queued.
        compute=ray.data.ActorPoolStrategy(
            size=concurrency.decoders, max_tasks_in_flight_per_actor=_MAX_TASKS_IN_FLIGHT
        ),
    )


class _Decoder:
    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        os.nice(_LOWEST_PRIORITY)  # whoever trains or embeds on this node comes first

    def __call__(self, block: pa.Table) -> Any:
        return self._decode(block)


def _read_window(shards: Sequence[ShardRef], window: Window, section: StreamConfig) -> Iterator[pa.Table]:
    """The samples of the window's shards in the window's order, read one sample at a time."""
    block = BlockBuilder(section.block_megabytes * 2**20)
    with contextlib.ExitStack() as stack:
        # Shards on an object store are copied to this machine: all of the window at a time.
        opened = map_in_threads(
            lambda shard_number: _open(stack, shards[shard_number]), window.shards, len(window.shards)
        )
        samples = [
            (shard_number, sample_number, read_sample)
            for shard_number, read_sample in zip(window.shards, opened, strict=True)
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


def _open(stack: contextlib.ExitStack, shard: ShardRef) -> Callable[[int], Any]:
    """A function that reads a sample by its number; if the shard is missing, every sample is bad."""
    try:
        return stack.enter_context(open_shard(shard)).read
    except MissingError as error:
        missing: BadSample = missing_shard(error)
        return lambda number: missing
