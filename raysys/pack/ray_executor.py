"""The streams of a pack through Ray Data: the same pieces as `serial`, wherever there is a free core."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from raysys.cluster.datasource import dataset_of
from raysys.errors import RaysysError
from raysys.pack.scan import Part
from raysys.pack.write import SHARD_NUMBER

_PAYLOAD, _NUM_ROWS, _ERROR = "part", "num_rows", "error"
_READ_BLOCK_BYTES = 1 << 20  # parts wait together up to here before they are dealt out
_MIN_PIECES = 64


class RayExecutor:
    """A `shard_sets.Executor` on the cluster that this process is connected to."""

    def survey(
        self, reads: Sequence[Callable[[], Iterator[Part]]], work: Callable[[Part], int]
    ) -> Iterator[int]:
        """A read task a source cuts parts as their turn comes; each part is a task of its own."""
        with _context(target_max_block_size=_READ_BLOCK_BYTES):
            parts = _dataset([functools.partial(_payloads, read) for read in reads]).repartition(
                target_num_rows_per_block=1, strict=True
            )
            done = parts.map_batches(
                functools.partial(_survey, work=work),
                batch_size=None,
                batch_format="pyarrow",
                concurrency=_num_cores(),
            )
            yield from _counts(done)

    def write(
        self, reads: Sequence[Callable[[], pa.Table]], num_shards: int, work: Callable[[pa.Table], int]
    ) -> Iterator[int]:
        """Rows sorted into ranges of shards; a range is written by one task."""
        num_pieces = min(num_shards, max(_MIN_PIECES, len(reads)))
        bounds: list[int | float] = [number * num_shards // num_pieces for number in range(num_pieces + 1)]
        # A block is one range of shards: it must not be cut, however large it is.
        with _context(target_max_block_size=None):
            if len(reads) == 1:  # a few rows: every task reads them all, and no shuffle has to start
                ranges = itertools.pairwise(bounds)
                rows = _dataset([functools.partial(_range, reads[0], low, high) for low, high in ranges])
            else:
                tables = _dataset([functools.partial(_whole, read) for read in reads])
                inner = bounds[1:-1]
                rows = tables.sort(SHARD_NUMBER, boundaries=inner) if inner else tables.repartition(1)
            done = rows.map_batches(
                functools.partial(_write, work=work),
                batch_size=None,
                batch_format="pyarrow",
                concurrency=_num_cores(),
            )
            yield from _counts(done)


def _dataset(reads: Sequence[Callable[[], Iterator[pa.Table]]]) -> ray.data.Dataset:
    return dataset_of(reads, [None] * len(reads), concurrency=min(len(reads), _num_cores()))


@contextlib.contextmanager
def _context(**settings: Any) -> Iterator[None]:
    """Ray Data's settings for the datasets that are made meanwhile."""
    context = ray.data.DataContext.get_current()
    settings |= {
        "print_on_execution_start": False,
        "enable_progress_bars": False,
    }
    before = {name: getattr(context, name) for name in settings}
    kept_order = context.execution_options.preserve_order
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # an error comes back as itself
    try:
        for name, value in settings.items():
            setattr(context, name, value)
        context.execution_options.preserve_order = False  # files have names; whoever is ready goes first
        with warnings.catch_warnings():
            # Fewer pieces than cores is no mistake of a small catalogue.
            warnings.filterwarnings("ignore", "The maximum number of concurrent tasks", UserWarning)
            yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        context.execution_options.preserve_order = kept_order


def _num_cores() -> int:
    """Real cores, not logical ones: every worker process first spends seconds on imports."""
    cores = len(ray.nodes()) * (os.cpu_count() or 1)
    return max(1, min(cores, int(ray.cluster_resources().get("CPU", 1))))


def _counts(done: ray.data.Dataset) -> Iterator[int]:
    for row in done.iter_rows():
        if row[_ERROR]:
            raise pickle.loads(row[_ERROR])
        yield int(row[_NUM_ROWS])


def _payloads(read: Callable[[], Iterator[Part]]) -> Iterator[pa.Table]:
    for part in read():
        yield pa.table({_PAYLOAD: pa.array([pickle.dumps(part)], pa.large_binary())})


def _survey(batch: pa.Table, work: Callable[[Part], int]) -> pa.Table:
    return _outcome(lambda: sum(work(pickle.loads(part.as_py())) for part in batch.column(_PAYLOAD)))


def _whole(read: Callable[[], pa.Table]) -> Iterator[pa.Table]:
    yield read()


def _range(read: Callable[[], pa.Table], low: float, high: float) -> Iterator[pa.Table]:
    number = pc.field(SHARD_NUMBER)
    yield read().filter((number >= low) & (number < high))


def _write(batch: pa.Table, work: Callable[[pa.Table], int]) -> pa.Table:
    return _outcome(lambda: work(batch) if batch.num_rows else 0)


def _outcome(work: Callable[[], int]) -> pa.Table:
    """What a piece came to. An error of ours travels as a value: Ray would add its own advice to it."""
    num_rows, error = 0, b""
    try:
        num_rows = work()
    except RaysysError as raised:
        error = pickle.dumps(raised)
    return pa.table({_NUM_ROWS: pa.array([num_rows], pa.int64()), _ERROR: pa.array([error], pa.binary())})
