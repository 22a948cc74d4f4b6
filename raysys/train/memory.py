"""Memory of a training step on a worker's device: what it is needed for and what fits."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from raysys.config.schema import TrainConfig
from raysys.errors import out_of_memory_reason

_MARGIN = 0.1  # of a device, for fragmentation and for what the libraries allocate later
_BATCH_SHARE = 0.25  # of a device that photos may take
_NUM_BATCHES = 3  # on the device: the present one, the next one, and the last one until its memory is free
# Pairs whose memory predicts that of larger micro-batches. For fewer pairs the gradient of a large
# vocabulary, which has one size, can be more than the activations.
_PROBE_SIZES = (16, 64)
_TILES = 12  # numbers for every pair of a tile of the loss: logits, labels, weights, and their intermediates


class DeviceMemory:
    """The memory of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.total_bytes: int = torch.cuda.mem_get_info(device)[1]

    def free_bytes(self, work: Callable[[], None]) -> float:
        """What is left at the peak of `work`, without the safety margin; -inf if `work` ran out of memory."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        try:
            work()
            torch.cuda.synchronize(self._device)
        except RuntimeError as error:
            if out_of_memory_reason(error) is None:
                raise
            return -math.inf
        free, total = torch.cuda.mem_get_info(self._device)
        # The context, NCCL and other processes.
        outside_torch = total - free - torch.cuda.memory_reserved(self._device)
        return (1 - _MARGIN) * total - outside_torch - torch.cuda.max_memory_allocated(self._device)


def largest_micro_batch(share: int, free_bytes: Callable[[int], float]) -> int | None:
    """The largest divisor of `share` that leaves memory free; None if a single pair does not.

    `free_bytes(size)` measures it. Two small sizes give the memory of a pair, which predicts the size; that
    is measured, too, and smaller divisors follow while memory is short.
    """
    sizes = [size for size in range(1, share + 1) if share % size == 0]
    low, high = (max(size for size in sizes if size <= limit) for limit in _PROBE_SIZES)
    free = {size: free_bytes(size) for size in sorted({low, high})}
    bytes_per_pair = (free[low] - free[high]) / (high - low) if high > low else 0.0
    for size in reversed(sizes):
        if size > high and not free[high] >= bytes_per_pair * (size - high):
            continue
        if size not in free:
            free[size] = free_bytes(size)
        if free[size] >= 0:
            return size
    return None


def batches_bytes(rows: int, size_px: int, device_bytes: int) -> int:
    """Memory of the photos of a worker's batches on its device; 0 if they stay in pinned host memory."""
    num_bytes = _NUM_BATCHES * rows * size_px**2 * 3
    return num_bytes if num_bytes <= _BATCH_SHARE * device_bytes else 0


def loss_bytes(section: TrainConfig, *, rows: int, workers: int, dimensions: int) -> int:
    """Memory of a worker's loss: embeddings and gradients of its `rows`, captions of others, and a tile."""
    num_kinds = 1 + len(section.caption_weights)
    embeddings = 2 * (1 + num_kinds) * rows  # with their gradients
    one_kind = 2 * 2 * rows  # photos and captions with their gradients
    exchanged = 0 if workers == 1 else 4 * workers * rows  # all captions with their gradients, twice
    tile = _TILES * min(section.loss_tile_rows, rows) ** 2
    return 4 * (dimensions * (embeddings + one_kind + exchanged) + tile)


def memory_advice(section: TrainConfig, workers: int, micro_batch_size: int) -> str:
    """The settings that would need less memory, each with its current value, most effective first."""
    settings = []
    if micro_batch_size > 1:
        settings.append(f"lower train.micro_batch_size (now {micro_batch_size})")
        if section.on_out_of_memory == "stop":
            settings.append("set train.on_out_of_memory=halve (now stop)")
    if section.activation_checkpointing != "full":
        settings.append(f"set train.activation_checkpointing=full (now {section.activation_checkpointing})")
    if section.parallel == "ddp" and workers > 1:
        settings.append("set train.parallel=fsdp (now ddp)")
    return ", or ".join(settings) or "use a GPU with more memory, or a smaller encoder"
