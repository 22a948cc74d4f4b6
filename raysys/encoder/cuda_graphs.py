"""Small batches on a GPU, computed by CUDA graphs.

A small batch keeps the GPU busy for less time than the host needs to launch its kernels one by one. A graph
launches all of them at once, but always for the same number of rows in the same memory, so there is one for
each of a few sizes, and a batch is padded to the next one. A graph takes milliseconds to capture, and as long
as `compute` takes to compile if it is a compiled function.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor

_WARM_UP_RUNS = 3  # libraries allocate their workspaces in the first ones, which a capture may not do

Compute: TypeAlias = Callable[[Tensor], Tensor]


def graph_sizes(max_rows: int) -> tuple[int, ...]:
    """The powers of two up to `max_rows`, and `max_rows`."""
    return (*(2**power for power in range((max_rows - 1).bit_length())), max_rows)


class CudaGraphs:
    """`compute` for batches of up to `max_rows` rows like `example`, a batch of one on a GPU.

    Threads may share it: they take turns. Other threads may use the GPU during the captures.
    """

    def __init__(self, compute: Compute, example: Tensor, max_rows: int) -> None:
        self._lock = threading.Lock()
        self._sizes = graph_sizes(max_rows)
        self._rows = example.repeat(max_rows, *[1] * (example.dim() - 1))
        self._staged = torch.empty(self._rows.shape, dtype=example.dtype, pin_memory=True)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._stream, pool = torch.cuda.Stream(example.device), torch.cuda.graph_pool_handle()
        self._stream.wait_stream(torch.cuda.current_stream(example.device))
        with torch.inference_mode():
            for size in reversed(self._sizes):  # the smaller ones use the memory of the largest
                self._graphs[size] = self._captured(compute, self._rows[:size], pool)

    @property
    def max_rows(self) -> int:
        """The largest batch."""
        return self._sizes[-1]

    @torch.inference_mode()
    def __call__(self, rows: Tensor) -> Float32[ndarray, "n d"]:
        """The result for at least one row in memory of the host."""
        count, size = len(rows), self._sizes[bisect.bisect_left(self._sizes, len(rows))]
        graph, result = self._graphs[size]
        with self._lock, torch.cuda.stream(self._stream):
            self._staged[:count].copy_(rows)
            # What earlier batches left in the rows after them is computed, too, and dropped.
            self._rows[:count].copy_(self._staged[:count], non_blocking=True)
            graph.replay()
            found: ndarray = result[:count].cpu().numpy()
            return found

    def _captured(self, compute: Compute, rows: Tensor, pool: Any) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_RUNS):
                compute(rows)
        with torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"):
            return graph, compute(rows)
