"""A worker's part of every global batch, held against the plan of the stream."""

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
from raysys.train.metrics.throughput import Throughput

NO_SAMPLE = -1  # the stream position of padding
Batch = dict[str, torch.Tensor]
_STEPS_AHEAD = 2  # made ready while the towers are busy


class WorkerBatches:
    """The batches of this worker from the one after `step` steps to the last, all of one size.

    The next one is fetched in the background: a worker without data can still be asked for a checkpoint.
    They lie on its device; with `train.micro_batch_size` on the host (pinned, if there is a GPU), since a
    global batch of any size has to fit.
    """

    def __init__(self, job: TrainJob, accelerator: Accelerator, step: int, pace: Throughput) -> None:
        self._job, self._accelerator, self._pace = job, accelerator, pace
        self._step, self._first_step = step, step
        self._num_rows = share_rows(job.section.batch_size, accelerator.num_processes, job.rows_per_block)
        self._blocks = _blocks(job, accelerator, ahead=_STEPS_AHEAD * self._num_rows // job.rows_per_block)
        self._coming = self._fetch()

    def has_come(self, timeout_s: float) -> bool:
        """Whether the next one is here, or will never be; waits for it a while."""
        with self._pace.waiting_for_data():
            return bool(concurrent.futures.wait([self._coming], timeout_s).done)

    def take(self) -> Batch:
        """The next one.

        Raises: DamagedData if the stream gives other samples than the plan says.
        """
        found, wanted = self._coming.result(), self._wanted()
        self._pace.begin_step()
        _require_planned(found, wanted, self._step)
        self._step += 1
        self._coming = self._fetch()
        batch = padded(_joined(found), self._num_rows, self._accelerator.process_index)
        is_pinned = _stays_on_host(self._job) and self._job.section.use_gpu
        return _pinned(batch) if is_pinned else batch

    def _fetch(self) -> Future[list[Batch]]:
        is_over = self._step >= self._job.num_steps  # a restart behind the last step fetches nothing
        num_blocks = 0 if is_over else len(self._wanted()) // self._job.rows_per_block
        return run_in_thread(lambda: list(itertools.islice(self._blocks, num_blocks)))

    def _wanted(self) -> Int64[ndarray, " rows"]:
        """The plan's samples for this worker in the next step."""
        return worker_positions(
            self._step,
            self._job.section.batch_size,
            self._accelerator.num_processes,
            self._accelerator.process_index,
            self._job.rows_per_block,
            first_step=self._first_step,
        )


def _blocks(job: TrainJob, accelerator: Accelerator, *, ahead: int) -> Iterator[Batch]:
    """What Ray deals to this worker, a block at a time."""
    shard = ray.train.get_dataset_shard("train")
    assert shard is not None
    on_host = _stays_on_host(job)
    batches = shard.iter_torch_batches(
        batch_size=job.rows_per_block,
        device="cpu" if on_host else str(accelerator.device),
        prefetch_batches=ahead,
        drop_last=True,
        pin_memory=job.section.use_gpu and not on_host,
    )
    return iter(batches)


def _stays_on_host(job: TrainJob) -> bool:
    return job.section.micro_batch_size is not None


def _require_planned(found: Sequence[Batch], wanted: Int64[ndarray, " rows"], step: int) -> None:
    positions = [position for block in found for position in block[STREAM_POSITION].tolist()]
    if not np.array_equal(positions, wanted):
        raise DamagedData(
            f"train: step {step} got {len(positions)} samples from position {positions[:1]}, "
            f"wanted {len(wanted)} from {wanted[0]}; this is a fault of raysys, please report it"
        )


def _joined(blocks: Sequence[Batch]) -> Batch:
    if len(blocks) == 1:
        return blocks[0]
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _pinned(batch: Batch) -> Batch:
    return {name: rows.pin_memory() for name, rows in batch.items()}


def padded(batch: Mapping[str, torch.Tensor], num_rows: int, rank: int) -> dict[str, torch.Tensor]:
    """The batch of worker `rank` with rows behind it, so that there are `num_rows`."""
    missing = num_rows - len(batch[STREAM_POSITION])
    if not missing:
        return dict(batch)
    padding = {name: rows.new_zeros(missing, *rows.shape[1:]) for name, rows in batch.items()}
    padding[STREAM_POSITION] -= 1
    # Not a group's, nor a sample's: those are from 0 on, and just below it.
    first = torch.iinfo(torch.int64).min + rank * num_rows
    padding[GROUP_KEYS] += torch.arange(first, first + missing, device=padding[GROUP_KEYS].device)
    return {name: torch.cat([rows, padding[name]]) for name, rows in batch.items()}
