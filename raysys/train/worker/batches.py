"""A worker's part of every global batch, held against the plan of the stream."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import ray.train
import torch
from accelerate import Accelerator

from raysys.errors import DamagedData
from raysys.records import STREAM_POSITION
from raysys.stream.order import worker_positions
from raysys.train.pace import Pace
from raysys.train.worker.job import TrainJob


def worker_batches(
    job: TrainJob, accelerator: Accelerator, step: int, pace: Pace
) -> Iterator[dict[str, torch.Tensor]]:
    """The batches of this worker from the one after `step` steps, on its device.

    Raises: DamagedData if the stream gives other samples than the plan says.
    """
    shard = ray.train.get_dataset_shard("train")
    assert shard is not None
    batches = shard.iter_torch_batches(
        batch_size=job.section.batch_size // accelerator.num_processes,
        device=str(accelerator.device),
        prefetch_batches=2,
        drop_last=True,
        pin_memory=job.section.use_gpu,
    )
    # Timed before the check, which waits for the GPU to finish what it is at.
    for number, batch in enumerate(pace.timed(iter(batches)), start=step):
        _require_planned(batch, number, job, accelerator)
        yield batch


def _require_planned(
    batch: dict[str, torch.Tensor], step: int, job: TrainJob, accelerator: Accelerator
) -> None:
    workers, rank = accelerator.num_processes, accelerator.process_index
    wanted = worker_positions(step, job.section.batch_size, workers, rank, job.rows_per_block)
    positions = batch[STREAM_POSITION].cpu().numpy()
    if not np.array_equal(positions, wanted):
        raise DamagedData(
            f"train: step {step} got {len(positions)} samples from position {positions[0]}, "
            f"wanted {len(wanted)} from {wanted[0]}; this is a fault of raysys, please report it"
        )
