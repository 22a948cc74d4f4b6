"""Batches of rows through an encoder on a device, as unit vectors on the host.

On a GPU the host does not wait: a batch is copied from pinned memory on a CUDA stream of its own while the
batch before it is computed, and its vectors are waited for only when they are used. With `capture`, small
batches are computed by CUDA graphs, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor

from raysys.encoder.cuda_graphs import CudaGraphs

# Waits for the vectors of a batch: float32 [rows, dimensions], of length 1.
PendingVectors: TypeAlias = Callable[[], ndarray]


class Forward:
    """Computes `features` of batches on a device, without gradients, and scales each row to length 1."""

    def __init__(self, features: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._features, self._device = features, device
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._graphs: CudaGraphs | None = None

    def capture(self, row: ndarray, max_rows: int) -> None:
        """On a GPU, compute batches of up to `max_rows` rows by CUDA graphs from now on.

        `row` is an example, [1, ..]. On a CPU it only computes this row, so that no later one is the first.
        """
        if self._copies is None:
            self.start(row)
        else:
            self._graphs = CudaGraphs(self._unit_vectors, torch.from_numpy(row).to(self._device), max_rows)

    @torch.inference_mode()
    def start(self, rows: ndarray) -> PendingVectors:
        """Begin to compute a batch; on a CPU it is complete at once."""
        # PyTorch warns of arrays that cannot be written, such as views of Arrow's memory.
        batch = torch.from_numpy(rows if rows.flags.writeable else rows.copy())
        if self._copies is None:
            vectors = self._unit_vectors(batch)
            return vectors.numpy
        if self._graphs is not None and len(batch) <= self._graphs.max_rows:
            found = self._graphs(batch)
            return lambda: found
        with torch.cuda.stream(self._copies):
            on_device = batch.pin_memory().to(self._device, non_blocking=True)
        compute = torch.cuda.current_stream(self._device)
        compute.wait_stream(self._copies)
        on_device.record_stream(compute)  # its memory is not used again before the batch is computed
        vectors = self._unit_vectors(on_device)
        on_host = torch.empty(vectors.shape, pin_memory=True)
        on_host.copy_(vectors, non_blocking=True)
        computed = torch.cuda.Event()
        computed.record(compute)

        def wait() -> ndarray:
            computed.synchronize()
            return on_host.numpy()

        return wait

    def __call__(self, rows: ndarray, batch_size: int) -> Float32[ndarray, "n d"]:
        """The vectors of at least one row, in batches; the next one is started before one is waited for."""
        parts, pending = [], None
        for first in range(0, len(rows), batch_size):
            started = self.start(rows[first : first + batch_size])
            if pending is not None:
                parts.append(pending())
            pending = started
        assert pending is not None, "no rows"
        return np.concatenate([*parts, pending()])

    def _unit_vectors(self, batch: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self._features(batch).float(), dim=-1)
