"""The FAISS files of an index as one: the rows of the second file follow those of the first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys.index.kinds import search_parameters
from raysys.index.neighbours import Neighbours, exact_neighbours, merged, merged_all

_faiss: Any = faiss  # its type stubs lack classes of its Python wrapper
_BLOCK_ROWS = 65_536


def read_shard(path: Path) -> Any:
    """The FAISS index of a file; its stored vectors can be read by row."""
    index = faiss.read_index(str(path))
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map()  # 8 bytes a vector
    return index


def write_shard(index: Any, path: Path) -> None:
    """Write a FAISS index. Raises: OSError at a full disk, where FAISS itself raises a RuntimeError."""
    with path.open("wb") as stream:
        faiss.write_index(index, _faiss.PyCallbackIOWriter(stream.write))


class Shards:
    """FAISS indexes over consecutive rows, searched with the same settings (`nprobe`, `ef_search`, ..)."""

    def __init__(self, indexes: Sequence[Any], settings: Mapping[str, int], first_row: int = 0) -> None:
        self._indexes = indexes
        self._settings = settings
        sizes = [index.ntotal for index in indexes]
        self._starts = first_row + np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1] - self._starts[0])

    @property
    def rows(self) -> Int64[ndarray, " n"]:
        """All rows, ascending."""
        return np.arange(self._starts[0], self._starts[-1])

    def search(self, queries: Float32[ndarray, "q d"], k: int) -> Neighbours:
        """The `k` nearest rows that the indexes find."""
        parts = []
        for index, start in zip(self._indexes, self._starts, strict=False):
            parameters = search_parameters(index, self._settings)
            scores, rows = index.search(queries, min(k, index.ntotal), params=parameters)
            is_row = rows >= 0  # FAISS pads a short result with row -1
            parts.append(
                Neighbours(np.where(is_row, scores, -np.inf), np.where(is_row, rows + start, np.int64(-1)))
            )
        return parts[0] if len(parts) == 1 else merged(parts, k)

    def search_among(
        self, queries: Float32[ndarray, "q d"], k: int, rows: Int64[ndarray, " n"]
    ) -> Neighbours:
        """The `k` nearest of `rows`, ascending, by comparing each of their stored vectors."""
        blocks = (rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS))
        parts = (exact_neighbours(queries, self.vectors(block), block, k) for block in blocks)
        return merged_all(parts, len(queries), k)

    def search_exactly(self, queries: Float32[ndarray, "q d"], k: int) -> Neighbours:
        """The `k` nearest rows by comparing all stored vectors."""
        return self.search_among(queries, k, self.rows)

    def vectors(self, rows: Int64[ndarray, " n"]) -> Float32[ndarray, "n d"]:
        """The stored vectors of rows; approximate for a kind that stores codes."""
        stored = np.empty((len(rows), self._indexes[0].d), np.float32)
        shard = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(shard):
            is_here = shard == number
            local = np.ascontiguousarray(rows[is_here] - self._starts[number])
            stored[is_here] = self._indexes[number].reconstruct_batch(local)
        return stored


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """FAISS uses one thread in the block: for latencies."""
    num_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(num_threads)
