"""`train.method: wise_ft`: the workers measure points between start and fine-tuned weights before they end.

A point has the metrics of a validation, and the retention: R@5 from photo to title on pairs from outside the
training domain. The choice of a point is in `raysys/encoder/interpolation.py`.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict

from raysys import storage
from raysys.encoder import siglip
from raysys.encoder.interpolation import Point, alphas, interpolate
from raysys.evaluate.retrieval import recalls
from raysys.train.checkpoint.format import exported_weights
from raysys.train.checkpoint.registry import best_checkpoint_uri, best_step
from raysys.train.job import TrainJob
from raysys.train.model.distributed import load_full_tensors, shard
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.monitor.stall import VALIDATING
from raysys.train.validation.checkpoint_validator import CheckpointValidator
from raysys.train.validation.worker_pairs import WorkerPairs
from raysys.train.worker import Worker

_SWEEP = "sweep.json"


class SweepResult(BaseModel):
    """The content of `sweep.json` in a run's folder: the measured points up to a checkpoint's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int  # of the checkpoint
    spec_hash: str  # of the `Sweep`
    points: list[Point]


def read_points(job: TrainJob) -> list[Point] | None:
    """The points that the workers measured for the run's best checkpoint; None if they did not yet."""
    uri = storage.join(job.run_uri, _SWEEP)
    if job.sweep is None or not storage.exists(uri):
        return None
    result = SweepResult.model_validate_json(storage.read_bytes(uri))
    is_current = (result.step, result.spec_hash) == (best_step(job.run_uri), job.sweep.spec_hash)
    return result.points if is_current else None


def measure_points(worker: Worker, validator: CheckpointValidator) -> None:
    """Measure the points between the start and the best checkpoint and write them to the run's folder.

    All workers make this call. Nothing is written after a stop request, or if the points are there already.
    """
    job, accelerator = worker.job, worker.accelerator
    is_main, from_main = accelerator.is_main_process, worker.consensus.group.from_main
    if job.sweep is None or from_main(read_points(job) is not None if is_main else None):
        return
    worker.heartbeat.enter(VALIDATING)
    line = _Line(job, from_main(best_checkpoint_uri(job.run_uri) if is_main else None), accelerator)
    worker.heartbeat.watch_towers(line.towers)
    pairs = WorkerPairs(job.sweep.retention, job, accelerator)
    points = []
    for alpha in alphas(job.sweep.num_points):
        line.move_to(alpha)
        metrics = validator.measure(line.towers)
        retention = pairs.embed(line.towers, worker.consensus.should_stop)
        if metrics is None or retention is None:
            return
        points.append(Point(alpha=alpha, metrics=metrics, retention=recalls(retention)["r@5"]))
    if is_main:
        result = SweepResult(step=best_step(job.run_uri), spec_hash=job.sweep.spec_hash, points=points)
        storage.write_bytes(storage.join(job.run_uri, _SWEEP), result.model_dump_json(indent=2).encode())


class _Line:
    """A worker's model that moves on the straight line between the start and a checkpoint's weights."""

    def __init__(self, job: TrainJob, checkpoint_uri: str, accelerator: Accelerator) -> None:
        with storage.readable_folder(job.start_uri) as folder:
            self._model = siglip.load_model(folder)
        self._start = {name: value.clone() for name, value in self._model.state_dict().items()}
        with storage.readable_folder(checkpoint_uri) as folder:
            self._fine_tuned = exported_weights(folder)
        towers = DualEncoder(self._model.to(accelerator.device), job.image, job.section.precision)
        towers.requires_grad_(False)
        self.towers: torch.nn.Module = (
            shard(towers)
            if job.section.parallel == "fsdp"
            else accelerator.prepare_model(towers, evaluation_mode=True)
        )

    def move_to(self, alpha: float) -> None:
        """Give the model the weights at `alpha`."""
        load_full_tensors(self._model.state_dict(), interpolate(self._start, self._fine_tuned, alpha))
