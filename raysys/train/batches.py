"""One worker's part of every global batch, checked against the planned order of the stream."""

from __future__ import annotations

import concurrent.futures
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import ray.train
import torch
from accelerate import Accelerator
from jaxtyping import Int64
from numpy import ndarray

from raysys.columns import CAPTION_KEYS, GROUP_KEYS, PATCH_SEEDS, PIXELS, STREAM_POSITION, TEACHER, TOKENS
from raysys.errors import DamagedData
from raysys.parallel import run_in_thread
from raysys.stream.order import share_rows, worker_positions
from raysys.train.job import TrainJob
from raysys.train.memory import batches_bytes
from raysys.train.step_metrics import Throughput

Batch = dict[str, torch.Tensor]
_PREFETCH_STEPS = 2  # prepared while the towers compute
# The host reads the others.
_STEP_COLUMNS = {PIXELS, TOKENS, PATCH_SEEDS, CAPTION_KEYS, GROUP_KEYS, TEACHER}


class WorkerBatches:
    """This worker's batches from the one after `step` steps to the last, all with equally many rows.

    A thread fetches the next batch and copies what a step needs to the device: training does not wait for the
    copy, and a worker without data can still save a checkpoint. The columns that the host reads stay there.
    """

    def __init__(self, job: TrainJob, accelerator: Accelerator, step: int, throughput: Throughput) -> None:
        self._job, self._accelerator, self._throughput = job, accelerator, throughput
        self._step, self._first_step = step, step
        num_rows = share_rows(job.section.batch_size, accelerator.num_processes, job.rows_per_block)
        self._join = BatchJoin(accelerator.device, accelerator.process_index, num_rows, job.image.size_px)
        shard = ray.train.get_dataset_shard("train")
        assert shard is not None
        prefetched = _PREFETCH_STEPS * num_rows // job.rows_per_block
        blocks = shard.iter_torch_batches(
            batch_size=job.rows_per_block, device="cpu", prefetch_batches=prefetched, drop_last=True
        )
        self._blocks: Iterator[Batch] = iter(blocks)
        self._next = self._fetch()

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s`. True once the next batch, or a failure to read it, has arrived."""
        with self._throughput.waiting_for_data():
            return bool(concurrent.futures.wait([self._next], timeout_s).done)

    def take(self) -> Batch:
        """The next batch; starts to fetch the one after it.

        Raises: DamagedData if the stream delivers other samples than planned.
        """
        batch = self._next.result()
        self._throughput.begin_step()
        self._step += 1
        self._next = self._fetch()
        return batch

    def _fetch(self) -> Future[Batch]:
        step, job, accelerator = self._step, self._job, self._accelerator

        def fetch() -> Batch:
            if step >= job.num_steps:  # nothing follows the last step
                return {}
            planned = worker_positions(
                step,
                job.section.batch_size,
                accelerator.num_processes,
                accelerator.process_index,
                job.rows_per_block,
                first_step=self._first_step,
            )
            blocks = list(itertools.islice(self._blocks, len(planned) // job.rows_per_block))
            _require_planned(blocks, planned, step)
            return self._join(blocks)

        return run_in_thread(fetch)


class BatchJoin:
    """Joins blocks to a batch of worker `rank`, in the calling thread.

    For a GPU, blocks are joined in pinned memory, and what the step needs is copied to the GPU on a stream of
    its own. If the GPU is too small for batches they stay pinned, and the step copies its micro-batches.
    """

    def __init__(self, device: torch.device, rank: int, num_rows: int, size_px: int) -> None:
        self._device, self._rank, self._num_rows = device, rank, num_rows
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._is_on_gpu = self._stream is not None and bool(
            batches_bytes(num_rows, size_px, torch.cuda.mem_get_info(device)[1])
        )

    def __call__(self, blocks: Sequence[Batch]) -> Batch:
        """The batch, completely copied."""
        if self._stream is None:
            return joined(blocks, self._num_rows, self._rank)
        with torch.cuda.stream(self._stream):  # also makes the worker's GPU the current one of this thread
            batch = joined(blocks, self._num_rows, self._rank, pin=True)
            if self._is_on_gpu:
                on_gpu = {
                    name: batch[name].to(self._device, non_blocking=True)
                    for name in _STEP_COLUMNS & batch.keys()
                }
                self._stream.synchronize()
                for rows in on_gpu.values():  # the steps' stream must have read it before it is used again
                    rows.record_stream(torch.cuda.default_stream(self._device))
                batch |= on_gpu
        return batch


def joined(blocks: Sequence[Batch], num_rows: int, rank: int, *, pin: bool = False) -> Batch:
    """The blocks of worker `rank` with padding rows appended, `num_rows` in all.

    Padding has no caption (key 0), stream position -1, and a group of its own for each row.
    """
    missing = num_rows - sum(len(block[STREAM_POSITION]) for block in blocks)
    parts = [*blocks, _padding(blocks[0], missing, first_row=rank * num_rows)] if missing else blocks
    if len(parts) == 1 and not pin:
        return dict(parts[0])
    return {name: _concatenate([part[name] for part in parts], pin=pin) for name in parts[0]}


def _padding(like: Batch, missing: int, *, first_row: int) -> Batch:
    padding = {name: rows.new_zeros(missing, *rows.shape[1:]) for name, rows in like.items()}
    padding[STREAM_POSITION] -= 1
    # Group keys of the stream are from 0 on, or slightly below 0 for samples without a group.
    first = torch.iinfo(torch.int64).min + first_row
    padding[GROUP_KEYS] += torch.arange(first, first + missing)
    return padding


def _concatenate(parts: list[torch.Tensor], *, pin: bool) -> torch.Tensor:
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    return torch.cat(parts, out=torch.empty(shape, dtype=parts[0].dtype, pin_memory=pin))


def _require_planned(blocks: Sequence[Batch], planned: Int64[ndarray, " rows"], step: int) -> None:
    positions = [position for block in blocks for position in block[STREAM_POSITION].tolist()]
    if not np.array_equal(positions, planned):
        raise DamagedData(
            f"train: step {step} received {len(positions)} samples from position {positions[:1]}, "
            f"expected {len(planned)} from {planned[0]}; this is a bug in raysys, please report it"
        )
