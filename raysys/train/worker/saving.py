"""When a checkpoint is taken, and how it gets to the run's folder."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import ray.train

from raysys.train.checkpoint import TrainingState, checkpoint_name
from raysys.train.engine import Engine
from raysys.train.worker.job import TrainJob


class Saving:
    """One worker's; all of them call `save` at the same steps."""

    def __init__(self, job: TrainJob, engine: Engine) -> None:
        self._job, self._engine = job, engine
        self._saved_at = time.monotonic()

    def is_planned(self, step: int) -> bool:
        """Whether the plan has a checkpoint, and a measurement, after this step."""
        return step % self._job.checkpoint_steps == 0 or step == self._job.num_steps

    def is_overdue(self) -> bool:
        """Whether the last checkpoint is older than `train.checkpoint_every_minutes`."""
        minutes = self._job.section.checkpoint_every_minutes
        return minutes is not None and time.monotonic() - self._saved_at > 60 * minutes

    def save(self, step: int, *, loss: float) -> None:
        """Keep the state after `step` steps; measured if that was planned."""
        self._saved_at = time.monotonic()
        figures = {"step": step, "loss": loss}
        if not self._engine.accelerator.is_main_process:
            self._engine.state_dict()  # where the weights are sharded, rank 0 needs every part
            ray.train.report(figures)
            return
        with tempfile.TemporaryDirectory() as folder:
            TrainingState(self._engine).save(Path(folder), step)
            ray.train.report(
                figures,
                ray.train.Checkpoint.from_directory(folder),
                checkpoint_dir_name=checkpoint_name(step),
                validation=self._job.is_validated and self.is_planned(step),
            )


def restore(engine: Engine) -> int:
    """Take over the run's last checkpoint, if there is one, and return its step."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return TrainingState(engine).load(Path(folder))
