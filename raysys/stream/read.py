"""Shards as Ray Data: a strict source of our own, since Ray's WebDataset reader loses rows in silence.

A read task is one window (training) or one shard (embedding). Blocks come in order, bounded in bytes;
with `preserve_order` the whole pipeline keeps it, which is what makes batches a function of position.
A sample that cannot be used is a row, too: without a photo, and with the reason why.
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
from raysys.shards.reader import BadSample, OpenShard, ShardRef, missing_shard, open_shard
from raysys.stream.blocks import BlockBuilder
from raysys.stream.order import Window, rows_of, windows

Decode: TypeAlias = Callable[[pa.Table], Any]  # a block of compressed rows -> a block of arrays
_PAUSE_S = 0.02
_TASKS_IN_FLIGHT = 4


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

    Blocks are dealt to the workers in turn (`worker_positions`). When a batch is a whole number of blocks,
    every number of workers gets the same global batches; but Ray deals in whole rounds, and cuts the last one
    up: where the workers may not divide the blocks, let the stream run on for a round.
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
    return _decoded(rows, decode, section)


def embedding_stream(shards: Sequence[ShardRef], decode: Decode, section: StreamConfig) -> ray.data.Dataset:
    """Every item of the shards once, decoded to pixels; no block crosses a shard."""
    tasks = [functools.partial(_read_whole, shard, number, section) for number, shard in enumerate(shards)]
    return _decoded(_read(tasks, [shard.num_items for shard in shards], section), decode, section)


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


def execution_options(section: StreamConfig) -> ray.data.ExecutionOptions:
    """In order, and within the share of the object store that the stream may fill."""
    limit = section.object_store_megabytes
    resources = ray.data.ExecutionResources.for_limits(object_store_memory=limit * 2**20 if limit else None)
    return ray.data.ExecutionOptions(preserve_order=True, resource_limits=resources)


class _Pause(ExecutionCallback):
    """A pause in each round of the scheduling loop.

    While training is slower than its data, every task of the stream has output that waits, and the loop of
    Ray 2.60 asks again at once: on two cores it took most of one.
    """

    def on_execution_step(self, executor: Any) -> None:
        time.sleep(_PAUSE_S)


def _read(
    reads: Sequence[Callable[[], Iterable[pa.Table]]], sizes: Sequence[int], section: StreamConfig
) -> ray.data.Dataset:
    prepare_context()
    ray.data.DataContext.get_current().execution_options = execution_options(section)
    return dataset_of(reads, sizes, concurrency=section.read_concurrency)


def _decoded(rows: ray.data.Dataset, decode: Decode, section: StreamConfig) -> ray.data.Dataset:
    # Actors, not tasks: a decoder imports a tokenizer library once, not once in every idle worker.
    return rows.map_batches(
        _Decoder,
        fn_constructor_args=(decode,),
        batch_size=None,
        batch_format="pyarrow",
        # The scheduling loop may sleep through the end of a task: the next ones have to lie ready.
        compute=ray.data.ActorPoolStrategy(
            size=section.decode_concurrency, max_tasks_in_flight_per_actor=_TASKS_IN_FLIGHT
        ),
    )


class _Decoder:
    def __init__(self, decode: Decode) -> None:
        self._decode = decode

    def __call__(self, block: pa.Table) -> Any:
        return self._decode(block)


def _read_window(shards: Sequence[ShardRef], window: Window, section: StreamConfig) -> Iterator[pa.Table]:
    """The samples of some shards in the window's order; one sample is read at a time."""
    block = BlockBuilder(section.block_megabytes * 2**20)
    with contextlib.ExitStack() as stack:
        numbered = [
            (shard_number, sample_number, opened)
            for shard_number in window.shards
            for opened in [_open(stack, shards[shard_number])]
            for sample_number in range(shards[shard_number].num_items)
        ]
        for position, row in enumerate(rows_of(window, len(numbered)), start=window.position):
            shard_number, sample_number, opened = numbered[row]
            yield from block.add(
                opened(sample_number),
                shards[shard_number],
                (window.epoch, position, shard_number, sample_number),
            )
    yield from block.rest()


def _read_whole(shard: ShardRef, shard_number: int, section: StreamConfig) -> Iterator[pa.Table]:
    block = BlockBuilder(section.block_megabytes * 2**20)
    with contextlib.ExitStack() as stack:
        opened = _open(stack, shard)
        for number in range(shard.num_items):
            yield from block.add(opened(number), shard, (0, number, shard_number, number))
    yield from block.rest()


def _open(stack: contextlib.ExitStack, shard: ShardRef) -> Callable[[int], Any]:
    """A function from the number of a sample to the sample, also when the shard is gone."""
    try:
        opened: OpenShard = stack.enter_context(open_shard(shard))
    except MissingError as error:
        gone: BadSample = missing_shard(error)
        return lambda number: gone
    return opened.read
