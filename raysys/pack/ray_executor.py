"""RayExecutor: the two loops of a pack through Ray Data, on the free cores of the cluster."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data
import ray.exceptions

from raysys.cluster import nodes as cluster_nodes
from raysys.cluster.datasource import dataset_of, open_rows
from raysys.errors import REASON_LENGTH, ClusterError, RaysysError, known_cause, unforeseen_at
from raysys.pack.executor import PartT
from raysys.pack.write import PLANNED_SHARD
from raysys.terminal import printable

_PART, _NUM_ROWS, _ERROR = "part", "num_rows", "error"
_READ_BLOCK_BYTES = 1 << 20  # parts are collected up to this size before they are distributed
_MIN_RANGES = 64


class RayExecutor:
    """An `Executor` on the cluster that this process is connected to."""

    def scan(
        self, reads: Sequence[Callable[[], Iterator[PartT]]], work: Callable[[PartT], int]
    ) -> Iterator[int]:
        """One read task per file cuts parts lazily; each part is scanned by a task of its own."""
        with _data_context(target_max_block_size=_READ_BLOCK_BYTES):
            parts = _dataset([functools.partial(_pickled_parts, read) for read in reads]).repartition(
                target_num_rows_per_block=1, strict=True
            )
            results = parts.map_batches(
                functools.partial(_scan_batch, work=work),
                batch_size=None,
                batch_format="pyarrow",
                concurrency=_num_cores(),
            )
            yield from _row_counts(results)

    def write(
        self, reads: Sequence[Callable[[], pa.Table]], num_shards: int, work: Callable[[pa.Table], int]
    ) -> Iterator[int]:
        """Sort the rows into ranges of shards; each range is written by one task."""
        num_ranges = min(num_shards, max(_MIN_RANGES, len(reads)))
        bounds: list[int | float] = [number * num_shards // num_ranges for number in range(num_ranges + 1)]
        # A block is one range of shards: it must not be cut, however large it is.
        with _data_context(target_max_block_size=None):
            if len(reads) == 1:  # few rows: every task reads them all, which avoids starting a shuffle
                ranges = itertools.pairwise(bounds)
                rows = _dataset([functools.partial(_range, reads[0], low, high) for low, high in ranges])
            else:
                tables = _dataset([functools.partial(_full_table, read) for read in reads])
                inner = bounds[1:-1]
                rows = tables.sort(PLANNED_SHARD, boundaries=inner) if inner else tables.repartition(1)
            results = rows.map_batches(
                functools.partial(_write_batch, work=work),
                batch_size=None,
                batch_format="pyarrow",
                concurrency=_num_cores(),
            )
            yield from _row_counts(results)


def _dataset(reads: Sequence[Callable[[], Iterator[pa.Table]]]) -> ray.data.Dataset:
    return dataset_of(reads, [None] * len(reads), concurrency=min(len(reads), _num_cores()))


@contextlib.contextmanager
def _data_context(**settings: Any) -> Iterator[None]:
    """Set Ray Data's settings for the datasets that are created in the block."""
    context = ray.data.DataContext.get_current()
    settings |= {
        "print_on_execution_start": False,
        "enable_progress_bars": False,
    }
    previous = {name: getattr(context, name) for name in settings}
    previous_order = context.execution_options.preserve_order
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors come back as values and are raised here
    try:
        for name, value in settings.items():
            setattr(context, name, value)
        context.execution_options.preserve_order = False  # results go to named files, so order is irrelevant
        with warnings.catch_warnings():
            # A small catalogue has fewer parts than the cluster has cores.
            warnings.filterwarnings("ignore", "The maximum number of concurrent tasks", UserWarning)
            yield
    finally:
        for name, value in previous.items():
            setattr(context, name, value)
        context.execution_options.preserve_order = previous_order


def _num_cores() -> int:
    """Cores of this machine, not logical CPUs of Ray: every additional process spends seconds on imports."""
    return max(1, cluster_nodes.num_cores(cluster_nodes.alive_nodes()))


def _row_counts(results: ray.data.Dataset) -> Iterator[int]:
    with open_rows(results) as rows:
        while (row := _next_row(rows)) is not None:
            if row[_ERROR]:
                raise pickle.loads(row[_ERROR])
            yield int(row[_NUM_ROWS])


def _next_row(rows: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return next(rows, None)
    except ray.exceptions.RayError as error:  # of a read task, or of the cluster
        known = known_cause(error)
        if known is not None and not isinstance(known, ClusterError):
            raise known from error
        reason = printable(known or error, REASON_LENGTH)
        message = f"a task of the pack failed ({reason}); run the command again: it continues"
        raise ClusterError(message) from error


def _pickled_parts(read: Callable[[], Iterator[PartT]]) -> Iterator[pa.Table]:
    with unforeseen_at("reading the catalogue"):
        for part in read():
            yield pa.table({_PART: pa.array([pickle.dumps(part)], pa.large_binary())})


def _scan_batch(batch: pa.Table, work: Callable[[PartT], int]) -> pa.Table:
    return _result(lambda: sum(work(pickle.loads(part.as_py())) for part in batch.column(_PART)))


def _full_table(read: Callable[[], pa.Table]) -> Iterator[pa.Table]:
    with unforeseen_at("reading the scanned rows"):
        yield read()


def _range(read: Callable[[], pa.Table], low: float, high: float) -> Iterator[pa.Table]:
    shard = pc.field(PLANNED_SHARD)
    with unforeseen_at("reading the scanned rows"):
        yield read().filter((shard >= low) & (shard < high))


def _write_batch(batch: pa.Table, work: Callable[[pa.Table], int]) -> pa.Table:
    return _result(lambda: work(batch) if batch.num_rows else 0)


def _result(work: Callable[[], int]) -> pa.Table:
    """A row count or a RaysysError as a table. A raised error would arrive wrapped in Ray's own advice."""
    num_rows, error = 0, b""
    try:
        num_rows = work()
    except RaysysError as raised:  # the work raises no other exception
        error = pickle.dumps(raised)
    return pa.table({_NUM_ROWS: pa.array([num_rows], pa.int64()), _ERROR: pa.array([error], pa.binary())})
