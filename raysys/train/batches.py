"""One worker's part of every global batch, checked against the planned order of the stream."""

from __future__ import annotations

import concurrent.futures
import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future

import numpy as np
import ray.train
import torch
from accelerate import Accelerator
from jaxtyping import Int64
from numpy import ndarray

from raysys.columns import GROUP_KEYS, STREAM_POSITION
from raysys.errors import DamagedData
from raysys.parallel import run_in_thread
from raysys.stream.order import share_rows, worker_positions
from raysys.train.job import TrainJob
from raysys.train.metrics.step_metrics import Throughput

Batch = dict[str, torch.Tensor]
_PREFETCH_STEPS = 2  # prepared while the towers compute


class WorkerBatches:
    """This worker's batches from the one after `step` steps to the last, all with equally many rows.

    The next batch is fetched in a thread, so that a worker without data can still save a checkpoint. Batches
    are in host memory (pinned, for a GPU): the host reads some columns, and a step moves the others to the
    device, one micro-batch at a time.
    """

    def __init__(self, job: TrainJob, accelerator: Accelerator, step: int, throughput: Throughput) -> None:
        self._job, self._accelerator, self._throughput = job, accelerator, throughput
        self._step, self._first_step = step, step
        self._num_rows = share_rows(job.section.batch_size, accelerator.num_processes, job.rows_per_block)
        prefetch_blocks = _PREFETCH_STEPS * self._num_rows // job.rows_per_block
        self._blocks = _blocks(job, prefetch_blocks)
        self._next = self._fetch()

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s`. True once the next batch, or a failure to read it, has arrived."""
        with self._throughput.waiting_for_data():
            return bool(concurrent.futures.wait([self._next], timeout_s).done)

    def take(self) -> Batch:
        """The next batch; starts to fetch the one after it.

        Raises: DamagedData if the stream delivers other samples than planned.
        """
        blocks, planned = self._next.result(), self._planned_positions()
        self._throughput.begin_step()
        _require_planned(blocks, planned, self._step)
        self._step += 1
        self._next = self._fetch()
        batch = padded(_concatenate(blocks), self._num_rows, self._accelerator.process_index)
        return _pin_memory(batch) if self._job.section.use_gpu else batch

    def _fetch(self) -> Future[list[Batch]]:
        is_over = self._step >= self._job.num_steps  # a restart after the last step fetches nothing
        num_blocks = 0 if is_over else len(self._planned_positions()) // self._job.rows_per_block
        return run_in_thread(lambda: list(itertools.islice(self._blocks, num_blocks)))

    def _planned_positions(self) -> Int64[ndarray, " rows"]:
        """The stream positions of this worker's samples in the next step."""
        return worker_positions(
            self._step,
            self._job.section.batch_size,
            self._accelerator.num_processes,
            self._accelerator.process_index,
            self._job.rows_per_block,
            first_step=self._first_step,
        )


def _blocks(job: TrainJob, prefetch_blocks: int) -> Iterator[Batch]:
    """The blocks that Ray assigns to this worker."""
    shard = ray.train.get_dataset_shard("train")
    assert shard is not None
    batches = shard.iter_torch_batches(
        batch_size=job.rows_per_block, device="cpu", prefetch_batches=prefetch_blocks, drop_last=True
    )
    return iter(batches)


def _require_planned(blocks: Sequence[Batch], planned: Int64[ndarray, " rows"], step: int) -> None:
    positions = [position for block in blocks for position in block[STREAM_POSITION].tolist()]
    if not np.array_equal(positions, planned):
        raise DamagedData(
            f"train: step {step} received {len(positions)} samples from position {positions[:1]}, "
            f"expected {len(planned)} from {planned[0]}; this is a bug in raysys, please report it"
        )


def _concatenate(blocks: Sequence[Batch]) -> Batch:
    if len(blocks) == 1:
        return blocks[0]
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _pin_memory(batch: Batch) -> Batch:
    return {name: rows.pin_memory() for name, rows in batch.items()}


def padded(batch: Mapping[str, torch.Tensor], num_rows: int, rank: int) -> Batch:
    """The batch of worker `rank` with padding rows appended, `num_rows` in all.

    Padding has no caption (key 0), stream position -1, and a group of its own for each row.
    """
    missing = num_rows - len(batch[STREAM_POSITION])
    if not missing:
        return dict(batch)
    padding = {name: rows.new_zeros(missing, *rows.shape[1:]) for name, rows in batch.items()}
    padding[STREAM_POSITION] -= 1
    # Group keys of the stream are from 0 on, or slightly below 0 for samples without a group.
    first = torch.iinfo(torch.int64).min + rank * num_rows
    padding[GROUP_KEYS] += torch.arange(first, first + missing, device=padding[GROUP_KEYS].device)
    return {name: torch.cat([rows, padding[name]]) for name, rows in batch.items()}
