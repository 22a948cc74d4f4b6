"""When a checkpoint is saved, and how it is written to the run's folder while training continues."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import CheckpointUploadMode

from raysys import storage
from raysys.errors import DiskFull
from raysys.train.checkpoint.format import checkpoint_name, load_checkpoint, snapshot, write_checkpoint
from raysys.train.job import COORDINATORS, TrainJob
from raysys.train.model import TrainState


class CheckpointSaver:
    """One instance a worker; all workers call `save` at the same steps.

    Training waits only for the copy to host memory. There is at most one such copy: a save waits until the
    previous one is written. Ray Train lets a worker end only after its last checkpoint is written and
    registered.
    """

    def __init__(self, job: TrainJob, train_state: TrainState, step: int) -> None:
        self._job, self._train_state = job, train_state
        self.saved_step = step
        """The last step whose state was saved; initially the step of the restart."""
        self._saved_at = time.monotonic()
        self._upload: _Upload | None = None

    def is_overdue(self) -> bool:
        """Whether the last checkpoint is older than `train.checkpoint_every_minutes`."""
        minutes = self._job.section.checkpoint_every_minutes
        return minutes is not None and time.monotonic() - self._saved_at > 60 * minutes

    def wait(self) -> None:
        """Wait until the last checkpoint is written."""
        if self._upload is not None:
            self._upload.finished.wait()

    def save(self, step: int, metrics: Mapping[str, float]) -> None:
        """Save the state after `step` steps; Ray Train gets `metrics` with it, among them its score."""
        self.wait()
        state = snapshot(self._train_state, step)
        self.saved_step = step
        self._saved_at = time.monotonic()
        if state is not None:
            self._upload = _Upload(self._job, self._train_state.accelerator.num_processes, state)
        _report({"step": step, **metrics}, self._upload)


class _Upload:
    """Writes a snapshot to the run's folder; Ray Train calls it in its upload thread."""

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
            self._state = None  # Ray Train holds a reference to this object for a while
        except DiskFull as error:
            self._end_run(error)
            raise  # Ray Train ends this worker group; the next one returns at once
        finally:
            self.finished.set()
        return target

    def _end_run(self, error: DiskFull) -> None:
        """Let the run end with this error, which every further attempt would meet again."""
        coordinator = ray.get_actor(self._job.coordinator_name, namespace=COORDINATORS)
        ray.get(coordinator.give_up.remote(error, self._world_size))


def _report(metrics: dict[str, Any], upload: _Upload | None) -> None:
    """Report to Ray Train; ranks without an upload only take part in the call."""
    if upload is None:
        ray.train.report(metrics, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)
        return
    ray.train.report(
        metrics,
        upload.target,
        checkpoint_dir_name=upload.name,
        checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
        checkpoint_upload_fn=upload,
        delete_local_checkpoint_after_upload=False,  # it is written to its final location
    )


def restore(train_state: TrainState) -> int:
    """Load the run's newest checkpoint, if there is one, and return its step (else 0).

    Raises: DamagedData if its files differ from those that were written.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return load_checkpoint(train_state, Path(folder))


def checkpoint_at(uri: str) -> ray.train.Checkpoint:
    """The checkpoint folder at `uri` as a `ray.train.Checkpoint`."""
    filesystem, path = storage.resolve(uri)
    return ray.train.Checkpoint(path, filesystem)
