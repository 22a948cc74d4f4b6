"""Metrics of training steps: loss, throughput, time spent waiting for data, memory, weight changes."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from raysys.config.schema import TrainConfig
from raysys.encoder.flops import Trained, peak_flops, training_flops_per_pair
from raysys.train.model.distributed import full_tensor, local_shards
from raysys.train.model.optim import lowest_trained_level

_SAMPLE_SIZE = 4096  # elements of a tensor: a copy of all weights would double their memory


class StepResult:
    """Metrics of a step over the global batch: `loss`, `grad_norm`, `scale`, `bias`, and those given.

    The device computes them; reading them waits until it has.
    """

    def __init__(self, metrics: Mapping[str, Tensor]) -> None:
        values = torch.stack([value.reshape(()).float() for value in metrics.values()])
        self._names = tuple(metrics)
        # One copy for all, into pinned memory, for which the host does not wait here.
        self._values = values.to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event(blocking=True) if values.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def metrics(self) -> dict[str, float]:
        """All metrics as plain floats."""
        if self._copied is not None:
            self._copied.synchronize()
        return dict(zip(self._names, self._values.tolist(), strict=True))


def trained_part(model: Any, section: TrainConfig) -> Trained:
    """What is trained of a SigLIP model, for its FLOPs."""
    return Trained(
        image_level=lowest_trained_level(model, "vision_model"),
        text_level=lowest_trained_level(model, "text_model"),
        has_matrix_grads=section.lora is None,
        is_distilled=section.method == "distil",
    )


class Throughput:
    """Times the steps of one worker; `metrics` covers the steps since it was last called.

    A worker's share of the global batch counts as the mean where shares are uneven. The wait for the very
    first batch, while the stream starts, is a metric of its own.
    """

    def __init__(self, model: Any, section: TrainConfig, *, workers: int, device: Any) -> None:
        self._pairs_per_worker, self._workers = section.batch_size / workers, workers
        num_captions = 1 + len(section.caption_weights)
        self._flops_per_pair = training_flops_per_pair(
            model.config, num_captions, trained_part(model, section), patch_dropout=section.patch_dropout
        )
        self._device = torch.device(device)
        self._first_batch_s: float | None = None
        self._started, self._waited_s, self._num_steps = time.monotonic(), 0.0, 0

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time of the block as waiting; a step may have several such blocks.

        It is the host that waits: on a GPU, the step before may still be running.
        """
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
        """The batch of a step has arrived."""
        if self._first_batch_s is None:
            self._first_batch_s, self._waited_s, self._started = self._waited_s, 0.0, time.monotonic()

    def end_step(self) -> None:
        """Count a step, which the device has completed."""
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
    """Samples the weights before an update; `metrics`, called after it on all workers, compares them.

    The metrics are tensors on the device of the weights.
    """

    @torch.no_grad()
    def __init__(self, model: Any) -> None:
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._before = self._sample()

    @torch.no_grad()
    def metrics(self) -> dict[str, Tensor]:
        """`weight_norm` of all trained weights, and `update_ratio`: norm of the update / norm of the weights.

        The ratio is estimated from 4,096 evenly spaced elements of each tensor (of this worker's shard).
        """
        weight_norm = full_tensor(torch.nn.utils.get_total_norm(self._weights))
        update = torch.linalg.vector_norm(self._sample() - self._before)
        before = torch.linalg.vector_norm(self._before).clamp(min=1e-12)
        return {"weight_norm": weight_norm, "update_ratio": update / before}

    def _sample(self) -> Tensor:
        shards = [shard.detach().flatten() for shard in local_shards(self._weights)]
        return torch.cat([shard[:: max(1, len(shard) // _SAMPLE_SIZE)].float() for shard in shards])
