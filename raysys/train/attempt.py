"""One worker group's attempt at a run, and which failures Ray need not retry.

A failure that would repeat (a diverged loss, damaged data, too little memory) is reported to the run's
`RunCoordinator`. If all ranks report one, they return and the run is over. A single rank raises instead,
which ends the collective calls that the others wait in; the next group then returns at once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import ray
import ray.train
import ray.util
import torch

from raysys.errors import DamagedData, InputError, OutOfMemory, RaysysError, TrainingDiverged, known_cause
from raysys.train.job import TrainJob
from raysys.train.loop import train_worker
from raysys.train.monitor.capacity import memory_advice, micro_batch_size

_FINAL = (DamagedData, InputError, OutOfMemory, TrainingDiverged)


def run_attempt(job: TrainJob, coordinator: Any) -> None:
    """Train in this worker group as far as it gets."""
    attempt_config = ray.get(coordinator.attempt_config.remote())
    if attempt_config.is_over:
        ray.get(coordinator.finish.remote())
        return
    if attempt_config.micro_batch_size is not None:
        smaller = job.section.model_copy(update={"micro_batch_size": attempt_config.micro_batch_size})
        job = dataclasses.replace(job, section=smaller)
    try:
        train_worker(job, coordinator)
        ray.get(coordinator.finish.remote())
    except Exception as error:
        final = _final_cause(error, job, coordinator)
        world_size = ray.train.get_context().get_world_size()
        if final is None or not ray.get(coordinator.give_up.remote(final, world_size)):
            raise


def _final_cause(error: Exception, job: TrainJob, coordinator: Any) -> RaysysError | None:
    """What ends the run for good; None if another attempt may come further."""
    if isinstance(error, torch.OutOfMemoryError):
        return _without_memory(error, job, coordinator)
    cause = known_cause(error)
    return cause if isinstance(cause, _FINAL) else None


def _without_memory(error: torch.OutOfMemoryError, job: TrainJob, coordinator: Any) -> RaysysError | None:
    context, section = ray.train.get_context(), job.section
    rank, workers = context.get_world_rank(), context.get_world_size()
    who = f"rank {rank} on node {ray.util.get_node_ip_address()} has too little memory"
    size = micro_batch_size(section, workers)
    if section.on_out_of_memory == "halve" and size > 1:
        ray.get(coordinator.halve_micro_batch.remote(size, who))
        return None
    said = str(error).strip().split(". ")[0][:200]
    return OutOfMemory(f"train: {who} ({said}); {memory_advice(section, workers)}")
