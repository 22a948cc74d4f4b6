"""Throughput of a run: pairs/s, model FLOP/s, the share of time spent waiting for data, and memory."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from typing import Any

import torch

from raysys.train.metrics.flops import peak_flops, training_flops_per_pair


class Throughput:
    """Times the steps of one worker; `metrics` covers the steps since it was last called.

    `pairs_per_worker` is a worker's share of the global batch (the mean where shares are uneven). The wait
    for the very first batch, while the stream starts, is a metric of its own.
    """

    def __init__(
        self, model_config: Any, *, pairs_per_worker: float, workers: int, num_captions: int, device: Any
    ) -> None:
        self._pairs_per_worker, self._workers = pairs_per_worker, workers
        self._flops_per_pair = training_flops_per_pair(model_config, num_captions)
        self._device = torch.device(device)
        self._first_batch_s: float | None = None
        self._started, self._waited_s, self._num_steps = time.monotonic(), 0.0, 0

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time of the block as waiting; a step may have several such blocks."""
        started = time.monotonic()
        yield
        self._waited_s += time.monotonic() - started

    def begin_step(self) -> None:
        """Count a step, whose batch has arrived."""
        if self._first_batch_s is None:
            self._first_batch_s, self._waited_s, self._started = self._waited_s, 0.0, time.monotonic()
        self._num_steps += 1

    def metrics(self) -> dict[str, float]:
        """pairs/s of all workers, model TFLOP/s of this worker, MFU on a known GPU, waits and memory.

        MFU is the share of the device's bf16 peak (Chowdhery et al. 2022).
        """
        seconds = max(time.monotonic() - self._started, 1e-9)
        pairs_per_s = self._num_steps * self._pairs_per_worker / seconds
        flops = pairs_per_s * self._flops_per_pair
        values = {
            "pairs_per_s": pairs_per_s * self._workers,
            "model_tflops": flops / 1e12,
            "data_wait": self._waited_s / seconds,
            "first_batch_s": self._first_batch_s or 0.0,
            "memory_mb": self._peak_memory_bytes() / 1e6,
        }
        if self._device.type == "cuda":
            peak = peak_flops(torch.cuda.get_device_name(self._device))
            values |= {"mfu": flops / peak} if peak else {}
        self._started, self._waited_s, self._num_steps = time.monotonic(), 0.0, 0
        return values

    def _peak_memory_bytes(self) -> int:
        """The peak that was allocated on the GPU, or resident on a CPU."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
