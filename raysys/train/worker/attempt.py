"""One worker group's attempt at a run. Ray retries what fails; here is decided what it need not retry.

What would fail again in the same way (a diverged loss, damaged data, too little memory) is told to the run's
`Watch`. If all ranks come to it, they return and the run is over. A single one raises, which takes the others
out of their waiting; the next group then returns at once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import ray
import ray.train
import ray.util
import torch

from raysys.errors import DamagedData, InputError, OutOfMemory, RaysysError, TrainingDiverged, known_cause
from raysys.train.driver.memory import micro_batch_size, needs_less
from raysys.train.worker.job import TrainJob
from raysys.train.worker.loop import train_worker

_FINAL = (DamagedData, InputError, OutOfMemory, TrainingDiverged)


def attempt(job: TrainJob, watch: Any) -> None:
    """Train in this worker group as far as it gets."""
    orders = ray.get(watch.orders.remote())
    if orders.is_over:
        ray.get(watch.end.remote())
        return
    if orders.micro_batch_size is not None:
        smaller = job.section.model_copy(update={"micro_batch_size": orders.micro_batch_size})
        job = dataclasses.replace(job, section=smaller)
    try:
        train_worker(job, watch)
        ray.get(watch.end.remote())
    except Exception as error:
        final = _final_cause(error, job, watch)
        world_size = ray.train.get_context().get_world_size()
        if final is None or not ray.get(watch.give_up.remote(final, world_size)):
            raise


def _final_cause(error: Exception, job: TrainJob, watch: Any) -> RaysysError | None:
    """What ends the run for good; None if another attempt may come further."""
    if isinstance(error, torch.OutOfMemoryError):
        return _without_memory(error, job, watch)
    cause = known_cause(error)
    return cause if isinstance(cause, _FINAL) else None


def _without_memory(error: torch.OutOfMemoryError, job: TrainJob, watch: Any) -> RaysysError | None:
    context, section = ray.train.get_context(), job.section
    rank, workers = context.get_world_rank(), context.get_world_size()
    who = f"rank {rank} on node {ray.util.get_node_ip_address()} has too little memory"
    size = micro_batch_size(section, workers)
    if section.on_out_of_memory == "halve" and size > 1:
        ray.get(watch.halve.remote(size, who))
        return None
    said = str(error).strip().split(". ")[0][:200]
    return OutOfMemory(f"train: {who} ({said}); {needs_less(section, workers)}")
