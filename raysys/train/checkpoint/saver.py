"""When a checkpoint is saved, and how it is written to the run's folder while training continues."""

from __future__ import annotations

import functools
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
from raysys.train.checkpoint.format import checkpoint_name, load_checkpoint, write_checkpoint
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
        self._world_size = train_state.accelerator.num_processes
        self.saved_step = step
        """The last step whose state was saved; initially the step of the restart."""
        self._saved_at = time.monotonic()
        self._written: threading.Event | None = None

    def is_overdue(self) -> bool:
        """Whether the last checkpoint is older than `train.checkpoint_every_minutes`."""
        minutes = self._job.section.checkpoint_every_minutes
        return minutes is not None and time.monotonic() - self._saved_at > 60 * minutes

    def wait(self) -> None:
        """Wait until the last checkpoint is written."""
        if self._written is not None:
            self._written.wait()

    def save(self, step: int, metrics: Mapping[str, float]) -> None:
        """Save the state after `step` steps; Ray Train gets `metrics` with it, among them its score."""
        self.wait()
        state = self._train_state.state_dict()
        self.saved_step, self._saved_at = step, time.monotonic()
        report = functools.partial(
            ray.train.report, {"step": step, **metrics}, checkpoint_upload_mode=CheckpointUploadMode.ASYNC
        )
        if not self._train_state.accelerator.is_main_process:
            report()  # all ranks take part in the call
            return
        self._written = threading.Event()
        name = checkpoint_name(step)
        filesystem, path = storage.resolve(storage.join(self._job.run_uri, name))
        report(
            ray.train.Checkpoint(path, filesystem),
            checkpoint_dir_name=name,
            checkpoint_upload_fn=functools.partial(self._write, state, step, self._written),
            delete_local_checkpoint_after_upload=False,  # it is written to its final location
        )

    def _write(
        self,
        state: dict[str, Any],
        step: int,
        written: threading.Event,
        target: ray.train.Checkpoint,
        name: str,
    ) -> ray.train.Checkpoint:
        """Write a state to the run's folder; Ray Train calls it in its upload thread."""
        try:
            write_checkpoint(
                state,
                storage.join(self._job.run_uri, name),
                step=step,
                spec_hash=self._job.spec_hash,
                stream_position=step * self._job.section.batch_size,
                world_size=self._world_size,
            )
        except DiskFull as error:
            # The run ends with this error, which every further attempt would meet again.
            coordinator = ray.get_actor(self._job.coordinator_name, namespace=COORDINATORS)
            ray.get(coordinator.give_up.remote(error, self._world_size))
            raise  # Ray Train ends this worker group; the next one returns at once
        finally:
            state.clear()  # Ray Train holds a reference to it for a while
            written.set()
        return target


def restore(train_state: TrainState) -> int:
    """Load the run's newest checkpoint, if there is one, and return its step (else 0).

    Raises: DamagedData if its files differ from those that were written.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return load_checkpoint(train_state, Path(folder))
