"""The streams of a pack in one process, piece after piece: what `job` is held to, and enough for few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from raysys.pack.scan import Part


class SerialExecutor:
    """A `shard_sets.Executor` without a cluster."""

    def survey(
        self, reads: Sequence[Callable[[], Iterator[Part]]], work: Callable[[Part], int]
    ) -> Iterator[int]:
        """Every part, in the order of the catalogue."""
        return (work(part) for read in reads for part in read())

    def write(
        self, reads: Sequence[Callable[[], pa.Table]], num_shards: int, work: Callable[[pa.Table], int]
    ) -> Iterator[int]:
        """All rows at once."""
        yield work(pa.concat_tables([read() for read in reads]))
