"""A Ray Data source from a list of functions: each is a read task that yields Arrow blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask


def dataset_of(
    reads: Sequence[Callable[[], Iterable[pa.Table]]],
    num_rows: Sequence[int | None],
    *,
    concurrency: int,
) -> ray.data.Dataset:
    """The blocks of all functions, in order; `num_rows` is the number of rows of each, None if unknown."""
    dataset: ray.data.Dataset = ray.data.read_datasource(
        _ReadFunctions(reads, num_rows), override_num_blocks=len(reads), concurrency=concurrency
    )
    return dataset


@contextlib.contextmanager
def open_rows(dataset: ray.data.Dataset) -> Iterator[Iterator[dict[str, Any]]]:
    """The rows of a dataset; the execution ends with the block, also after an error.

    Left to a garbage collection, the end may fall into one of Ray's own threads, which cannot join itself.
    """
    rows: Any = iter(dataset.iter_rows())
    try:
        yield rows
    finally:
        rows.close()


class _ReadFunctions(Datasource):
    def __init__(
        self, reads: Sequence[Callable[[], Iterable[pa.Table]]], num_rows: Sequence[int | None]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in Ray
        self._tasks = [
            ReadTask(read, BlockMetadata(num_rows=rows, size_bytes=None, exec_stats=None))
            for read, rows in zip(reads, num_rows, strict=True)
        ]

    def get_read_tasks(self, *_: object, **__: object) -> list[ReadTask]:
        return self._tasks

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_name(self) -> str:
        return "Reads"
