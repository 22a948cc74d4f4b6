"""One FAISS file of an index: written, opened by memory map, and searched with the settings of the index."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys.index.device import CPU, Device, IndexCopy
from raysys.index.kinds import reduced, search_parameters
from raysys.index.nearest import exact_nearest, nearest
from raysys.index.neighbours import Neighbours
from raysys.index.passing import Passing
from raysys.index.stored import StoredVectors

_faiss: Any = faiss  # its type stubs lack classes of its Python wrapper

# A child that was forked after a search has no threads of FAISS, and would wait for them for ever.
os.register_at_fork(after_in_child=partial(faiss.omp_set_num_threads, 1))


@dataclass(frozen=True)
class Shard:
    """A FAISS index, which has a part of the rows of all files together."""

    index: Any
    settings: Mapping[str, int]
    """`nprobe`, `k_factor` or `ef_search`."""
    first_row: int = 0
    max_exact_rows: int = 0
    """If at most this many rows pass a filter, they are searched exactly."""
    device: Device = CPU
    """Compares many queries with stored vectors."""
    copy: IndexCopy | None = None
    """Of the index, for searches without a filter."""
    _by_effort: dict[float, Shard] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return int(self.index.ntotal)

    @cached_property
    def _parameters(self) -> Any:
        return search_parameters(self.index, self.settings)

    @cached_property
    def _stored(self) -> StoredVectors:
        return StoredVectors.of(self.index)

    def with_effort(self, share: float) -> Shard:
        """The same file, whose searches examine this share of the lists or candidates."""
        if share not in self._by_effort:
            self._by_effort[share] = replace(self, settings=reduced(self.settings, share))
        return self._by_effort[share]

    def search(
        self,
        queries: Float32[ndarray, "q d"],
        k: int,
        passing: Passing | None = None,
        *,
        is_exact: bool = False,
    ) -> Neighbours:
        """The `k` nearest rows of this file, of those that pass; as many as exist if these are fewer."""
        if is_exact:
            rows = np.arange(len(self)) if passing is None else passing.rows()
            found = exact_nearest(self._stored, queries, k, rows, self.device)
        else:
            found = nearest(
                self.index,
                self._stored,
                self.settings,
                queries,
                k,
                passing,
                max_exact_rows=self.max_exact_rows,
                device=self.device,
                copy=self.copy,
                parameters=self._parameters,
            )
        return Neighbours(found.scores, found.rows + self.first_row)

    def vector(self, row: int) -> Float32[ndarray, " d"]:
        """The stored vector of a row, of length 1; approximate for a kind that stores codes."""
        vector = np.asarray(self.index.reconstruct(row - self.first_row), np.float32)
        return np.asarray(vector / np.linalg.norm(vector))


def index_file(number: int) -> str:
    """The name of a FAISS file of an IndexBundle."""
    return f"shard-{number:05d}.faiss"


def read_shard(path: Path) -> Any:
    """The FAISS index of a file, by memory map where its kind allows.

    The list and the stored vector of a row can be read. The file may be deleted while the index is open, but
    not altered.
    """
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    ivf = _faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf.make_direct_map()  # 8 bytes a vector
    return index


def write_shard(index: Any, path: Path) -> None:
    """Write a FAISS index. Raises: OSError at a full disk, where FAISS itself raises a RuntimeError."""
    with path.open("wb") as stream:
        faiss.write_index(index, _faiss.PyCallbackIOWriter(stream.write))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """FAISS uses one thread in the block: for latencies."""
    num_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(num_threads)
