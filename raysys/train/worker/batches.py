"""A worker's part of every global batch, held against the plan of the stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import ray.train
import torch
from accelerate import Accelerator
from jaxtyping import Int64
from numpy import ndarray

from raysys.errors import DamagedData
from raysys.records import STREAM_POSITION
from raysys.stream.order import share_rows, worker_positions
from raysys.train.figures.pace import Pace
from raysys.train.worker.job import TrainJob
from raysys.train.worker.padding import padded

Batch = dict[str, torch.Tensor]
_STEPS_AHEAD = 2  # made ready while the towers are busy


def worker_batches(job: TrainJob, accelerator: Accelerator, step: int, pace: Pace) -> Iterator[Batch]:
    """The batches of this worker from the one after `step` steps to the last, all of one size.

    They lie on its device; with `train.micro_batch_size` on the host (pinned, if there is a GPU), since a
    global batch of any size has to fit.
    Raises: DamagedData if the stream gives other samples than the plan says.
    """
    size, per_block = job.section.batch_size, job.rows_per_block
    workers, rank = accelerator.num_processes, accelerator.process_index
    num_rows = share_rows(size, workers, per_block)
    blocks = _blocks(job, accelerator, ahead=_STEPS_AHEAD * num_rows // per_block)
    for number in range(step, job.num_steps):
        wanted = worker_positions(number, size, workers, rank, per_block, first_step=step)
        with pace.waiting():  # and not for the check, which waits for the GPU to finish what it is at
            found = list(itertools.islice(blocks, len(wanted) // per_block))
        _require_planned(found, wanted, number)
        batch = padded(_joined(found), num_rows, rank)
        yield _pinned(batch) if _stays_on_host(job) and job.section.use_gpu else batch


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
