"""When a checkpoint is taken, and how it gets to the run's folder while training goes on."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import ray.train
from ray.train import CheckpointUploadMode

from raysys import storage
from raysys.train.checkpoint.format import TrainingState, checkpoint_name, write_checkpoint
from raysys.train.job import TrainJob
from raysys.train.model import TrainState


class Saving:
    """One worker's; all of them call `save` at the same steps.

    Training waits for the copy to host memory alone. Beside the live state there is one such copy at most:
    a save waits until the one before it is written. Ray Train lets a worker end only when its last
    checkpoint is written and registered.
    """

    def __init__(self, job: TrainJob, engine: TrainState, step: int) -> None:
        self._job, self._engine = job, engine
        self.kept_step = step
        """The last step whose state was kept; at first that of the restart."""
        self._saved_at = time.monotonic()
        self._upload: _Upload | None = None

    def is_overdue(self) -> bool:
        """Whether the last checkpoint is older than `train.checkpoint_every_minutes`."""
        minutes = self._job.section.checkpoint_every_minutes
        return minutes is not None and time.monotonic() - self._saved_at > 60 * minutes

    def save(self, step: int, *, loss: float) -> None:
        """Keep the state after `step` steps; measured if that was planned."""
        if self._upload is not None:
            self._upload.finished.wait()
        state = TrainingState(self._engine).snapshot(step)
        self.kept_step = step
        self._saved_at = time.monotonic()
        if state is not None:
            self._upload = _Upload(self._job, self._engine.accelerator.num_processes, state)
        _report(
            {"step": step, "loss": loss},
            self._upload,
            is_validated=self._job.is_validated_step(step),
        )


class _Upload:
    """A snapshot on its way to the run's folder, called in Ray Train's thread for it."""

    def __init__(self, job: TrainJob, world_size: int, state: dict[str, Any]) -> None:
        self._job, self._world_size = job, world_size
        self._state: dict[str, Any] | None = state
        self.name = checkpoint_name(state["step"])
        self.target = checkpoint_at(storage.join(job.run_uri, self.name))
        self.finished = threading.Event()

    def __call__(self, target: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
        assert self._state is not None, f"{name} is written once"
        try:
            write_checkpoint(
                self._state,
                storage.join(self._job.run_uri, name),
                spec_hash=self._job.spec_hash,
                stream_position=self._state["step"] * self._job.section.batch_size,
                world_size=self._world_size,
            )
            self._state = None  # Ray Train holds on to this object for a while
        finally:
            self.finished.set()
        return target


def checkpoint_at(uri: str) -> ray.train.Checkpoint:
    """The folder of a checkpoint as Ray Train knows it."""
    filesystem, path = storage.resolve(uri)
    return ray.train.Checkpoint(path, filesystem)


def _report(figures: dict[str, Any], upload: _Upload | None, *, is_validated: bool) -> None:
    """Tell Ray Train; ranks that upload nothing only take part."""
    if upload is None:
        ray.train.report(figures, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)
        return
    ray.train.report(
        figures,
        upload.target,
        checkpoint_dir_name=upload.name,
        checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
        checkpoint_upload_fn=upload,
        delete_local_checkpoint_after_upload=False,  # it is written where it stays
        validation=is_validated,
    )


def restore(engine: TrainState) -> int:
    """Take over the run's last checkpoint, if there is one, and return its step.

    Raises: DamagedData if it is not what was written.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return TrainingState(engine).load(Path(folder))
