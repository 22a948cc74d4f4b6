"""One worker group's attempt at a run, and the failures that Ray does not need to retry.

A failure that would repeat (a diverged loss, damaged data, too little memory, a full disk) is reported to
the run's `RunCoordinator`. If all ranks report one, they return and the run is over. A single rank raises
instead, which ends the collective calls in which the others wait; the next group then returns at once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import ray
import ray.train
import ray.util
import torch

from raysys.errors import (
    DamagedData,
    DiskFull,
    InputError,
    OutOfMemory,
    RaysysError,
    TrainingDiverged,
    known_cause,
)
from raysys.train.job import TrainJob
from raysys.train.loop import train_worker
from raysys.train.monitor.capacity import memory_advice, micro_batch_size
from raysys.train.monitor.worker_log import log_to_driver

_NOT_RETRIED = (DamagedData, DiskFull, InputError, OutOfMemory, TrainingDiverged)


def run_attempt(job: TrainJob, coordinator: Any) -> None:
    """Train in this worker group until the run ends or an error occurs."""
    attempt_config = ray.get(coordinator.attempt_config.remote())
    if attempt_config.is_over:
        return
    if attempt_config.micro_batch_size is not None:
        section = job.section.model_copy(update={"micro_batch_size": attempt_config.micro_batch_size})
        job = dataclasses.replace(job, section=section)
    try:
        with log_to_driver(coordinator):
            train_worker(job, coordinator)
    except Exception as error:
        fatal_error = _fatal_error(error, job, coordinator)
        world_size = ray.train.get_context().get_world_size()
        if fatal_error is None or not ray.get(coordinator.give_up.remote(fatal_error, world_size)):
            raise


def _fatal_error(error: Exception, job: TrainJob, coordinator: Any) -> RaysysError | None:
    """The error that ends the run; None if another attempt may succeed."""
    if isinstance(error, torch.OutOfMemoryError):
        return _handle_out_of_memory(error, job, coordinator)
    cause = known_cause(error)
    return cause if isinstance(cause, _NOT_RETRIED) else None


def _handle_out_of_memory(
    error: torch.OutOfMemoryError, job: TrainJob, coordinator: Any
) -> RaysysError | None:
    """None if the next attempt uses half the micro-batch, else the error that ends the run."""
    context, section = ray.train.get_context(), job.section
    rank, workers = context.get_world_rank(), context.get_world_size()
    shortage = f"rank {rank} on node {ray.util.get_node_ip_address()} has too little memory"
    size = micro_batch_size(section, workers)
    if section.on_out_of_memory == "halve" and size > 1:
        ray.get(coordinator.halve_micro_batch.remote(size, shortage))
        return None
    reason = str(error).strip().split(". ")[0][:200]
    return OutOfMemory(f"train: {shortage} ({reason}); {memory_advice(section, workers)}")
