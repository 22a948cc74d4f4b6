"""How fast a run goes: pairs, arithmetic, and the share of time in which it waits for data."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from typing import Any

import torch

from raysys.train.metrics.flops import peak_flops, training_flops_per_pair


class Throughput:
    """Times the steps of one worker; `figures` tells of those since it was last asked.

    `share` is a worker's part of the global batch; where it is uneven, the mean.
    The wait for the very first batch, while the stream starts, is a figure of its own.
    """

    def __init__(
        self, model_config: Any, *, share: float, workers: int, num_captions: int, device: Any
    ) -> None:
        self._share, self._workers = share, workers
        self._flops_per_pair = training_flops_per_pair(model_config, num_captions)
        self._device = torch.device(device)
        self._first_batch_s: float | None = None
        self._began, self._waited_s, self._steps = time.monotonic(), 0.0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a wait for a step's data, of which there may be several."""
        asked = time.monotonic()
        yield
        self._waited_s += time.monotonic() - asked

    def begin_step(self) -> None:
        """The data of a step are here."""
        if self._first_batch_s is None:
            self._first_batch_s, self._waited_s, self._began = self._waited_s, 0.0, time.monotonic()
        self._steps += 1

    def figures(self) -> dict[str, float]:
        """pairs/s of all workers, a worker's model TFLOP/s, MFU on a GPU that is known, waits and memory.

        MFU is the share of the device's bf16 peak (Chowdhery et al. 2022).
        """
        seconds = max(time.monotonic() - self._began, 1e-9)
        pairs_per_s = self._steps * self._share / seconds
        flops = pairs_per_s * self._flops_per_pair
        found = {
            "pairs_per_s": pairs_per_s * self._workers,
            "model_tflops": flops / 1e12,
            "data_wait": self._waited_s / seconds,
            "first_batch_s": self._first_batch_s or 0.0,
            "memory_mb": self._peak_bytes() / 1e6,
        }
        if self._device.type == "cuda":
            peak = peak_flops(torch.cuda.get_device_name(self._device))
            found |= {"mfu": flops / peak} if peak else {}
        self._began, self._waited_s, self._steps = time.monotonic(), 0.0, 0
        return found

    def _peak_bytes(self) -> int:
        """The most that was allocated on the GPU, or resident on a CPU."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
