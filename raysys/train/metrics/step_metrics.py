"""Metrics of training steps: throughput, model FLOPs, time spent waiting for data, memory, weight changes.

FLOPs count matrix products only: 2 operations a multiplication, and a backward pass takes twice its forward
pass (Kaplan et al. 2020). *Model* FLOPs exclude what micro-batches and activation checkpointing recompute.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Dense bf16 peaks from the manufacturers' data sheets, operations a second.
_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12}
_SAMPLE_SIZE = 4096  # elements of a tensor: a copy of all weights would double their memory


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

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of the block."""
        started = time.monotonic()
        yield
        self._started += time.monotonic() - started

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


class WeightChange:
    """Samples the weights before an update; `metrics`, called after it on all workers, compares them."""

    @torch.no_grad()
    def __init__(self, model: Any) -> None:
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._before = self._sample()

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """`weight_norm` of all trained weights, and `update_ratio`: norm of the update / norm of the weights.

        The ratio is estimated from 4,096 evenly spaced elements of each tensor (of this worker's shard).
        """
        norm = torch.nn.utils.get_total_norm(self._weights)
        weight_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        update = torch.linalg.vector_norm(self._sample() - self._before)
        before = torch.linalg.vector_norm(self._before).clamp(min=1e-12)
        values = torch.stack([weight_norm.float(), update / before]).tolist()
        return dict(zip(("weight_norm", "update_ratio"), values, strict=True))

    def _sample(self) -> Tensor:
        shards = [getattr(weight, "to_local", lambda own=weight: own)() for weight in self._weights]
        return torch.cat(
            [shard.detach().flatten()[:: max(1, shard.numel() // _SAMPLE_SIZE)].float() for shard in shards]
        )


def training_flops_per_pair(config: Any, num_captions: int = 1) -> float:
    """Operations to train on one photo with its captions; `config` is a `SiglipConfig`."""
    vision, text = config.vision_config, config.text_config
    num_patches = (vision.image_size // vision.patch_size) ** 2
    hidden, inner = vision.hidden_size, vision.intermediate_size
    patches = num_patches * vision.num_channels * vision.patch_size**2 * hidden
    # The pooling head: one query over all patches, then an MLP on one vector.
    pooling = 2 * num_patches * hidden**2 + 2 * hidden**2 + 2 * num_patches * hidden + 2 * hidden * inner
    length = text.max_position_embeddings
    projection = text.hidden_size * getattr(text, "projection_size", text.hidden_size)
    image = patches + _layers(vision, num_patches) + pooling
    caption = _layers(text, length) + projection
    # Pixels need no gradient, so the patch embedding's backward pass computes only that of its weights.
    flops: float = 3.0 * 2.0 * (image + num_captions * caption) - 2.0 * patches
    return flops


def peak_flops(device_name: str) -> float | None:
    """The bf16 peak of a GPU by its name, operations a second; None for an unknown one."""
    return next(
        (peak for name, peak in _PEAK_FLOPS.items() if name in device_name.upper().replace("-", " ")), None
    )


def _layers(tower: Any, num_tokens: int) -> int:
    """Multiplications in a tower's layers: projections, MLP, and attention over all tokens."""
    hidden, inner = tower.hidden_size, tower.intermediate_size
    per_token = 4 * hidden**2 + 2 * hidden * inner + 2 * num_tokens * hidden
    return int(tower.num_hidden_layers * num_tokens * per_token)
