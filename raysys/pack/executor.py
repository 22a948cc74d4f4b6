"""How the two loops of a pack run: in this process, or (`ray_executor.py`) as tasks on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import pyarrow as pa

PartT = TypeVar("PartT")  # of the scan: rows of a table, or tars


class Executor(Protocol):
    """Runs the scan and the writing of a pack. The order of the results does not matter."""

    def scan(
        self, reads: Sequence[Callable[[], Iterator[PartT]]], work: Callable[[PartT], int]
    ) -> Iterator[int]:
        """Yield `work(part)` for every part of every read."""
        ...

    def write(
        self,
        reads: Sequence[Callable[[], pa.Table]],
        num_shards: int,
        work: Callable[[pa.Table], int],
    ) -> Iterator[int]:
        """Group all rows by shard and yield `work(rows)` for tables that hold complete shards."""
        ...


class SerialExecutor:
    """Runs both loops in this process: the reference with which tests compare RayExecutor."""

    def scan(
        self, reads: Sequence[Callable[[], Iterator[PartT]]], work: Callable[[PartT], int]
    ) -> Iterator[int]:
        """Scan every part in the order of the catalogue."""
        return (work(part) for read in reads for part in read())

    def write(
        self, reads: Sequence[Callable[[], pa.Table]], num_shards: int, work: Callable[[pa.Table], int]
    ) -> Iterator[int]:
        """Write all rows at once."""
        yield work(pa.concat_tables([read() for read in reads]))
