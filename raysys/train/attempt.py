"""One worker group's attempt at a run, and the failures that Ray does not need to retry.

A failure that would repeat (a diverged loss, damaged data, too little memory, a full disk) is reported to
the run's `RunCoordinator`. If all ranks report one, they return and the run is over. A single rank raises
instead, which ends the collective calls in which the others wait; the next group then returns at once.
"""

from __future__ import annotations

from typing import Any

import ray
import ray.train
import ray.util

from raysys.errors import (
    DamagedData,
    DiskFull,
    InputError,
    OutOfMemory,
    RaysysError,
    TrainingDiverged,
    known_cause,
    out_of_memory_reason,
)
from raysys.tracking import logs
from raysys.train.job import TrainJob
from raysys.train.loop import train_worker
from raysys.train.memory import memory_advice
from raysys.train.micro_batch import MicroBatch

_NOT_RETRIED = (DamagedData, DiskFull, InputError, OutOfMemory, TrainingDiverged)


def run_attempt(job: TrainJob, coordinator: Any) -> None:
    """Train in this worker group until the run ends or an error occurs."""
    if ray.get(coordinator.is_over.remote()):
        return
    world_size = ray.train.get_context().get_world_size()
    micro_batch = MicroBatch(job, world_size)
    try:
        with logs.forwarded("train", coordinator.log.remote):
            train_worker(job, coordinator, micro_batch)
    except Exception as error:
        fatal_error = _fatal_error(error, job, coordinator, micro_batch)
        if fatal_error is None or not ray.get(coordinator.give_up.remote(fatal_error, world_size)):
            raise


def _fatal_error(
    error: Exception, job: TrainJob, coordinator: Any, micro_batch: MicroBatch
) -> RaysysError | None:
    """The error that ends the run; None if another attempt may succeed, after an out-of-memory error with
    half the micro-batch."""
    cause = known_cause(error)
    if isinstance(cause, _NOT_RETRIED):
        return cause
    reason = out_of_memory_reason(error)
    if reason is None:
        return None
    context, size = ray.train.get_context(), micro_batch.size or 1
    node = ray.util.get_node_ip_address()
    shortage = f"rank {context.get_world_rank()} on node {node} has too little memory"
    if job.section.on_out_of_memory == "halve" and size > 1:
        then = f"the run continues from the last checkpoint with {micro_batch.halve()}"
        line = f"{shortage} for micro_batch_size {size}; {then}"
        ray.get(coordinator.log.remote(line, once=f"micro_batch_size {size}"))
        return None
    advice = memory_advice(job.section, context.get_world_size(), size)
    return OutOfMemory(f"train: {shortage} ({reason}); {advice}")
