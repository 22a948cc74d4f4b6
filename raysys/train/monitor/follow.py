"""Follow a training from the driver to its end: stalls, stop requests, and the error that ended it."""

from __future__ import annotations

import concurrent.futures
import math
import signal
import time
from concurrent.futures import Future
from typing import Any

import ray
import ray.train
import ray.train.torch

from raysys import storage
from raysys.errors import ClusterError, RaysysError, Stopped, known_cause
from raysys.parallel import run_in_thread
from raysys.signals import StopRequest, stop_request
from raysys.tracking.logs import log
from raysys.train.checkpoint.format import checkpoint_name
from raysys.train.checkpoint.registry import newest_step
from raysys.train.job import TrainJob
from raysys.train.monitor.coordinator import RunStatus

_EXIT_TIMEOUT_S = 5.0  # for Ray to register the last checkpoint after a stop request


def follow_to_end(trainer: ray.train.torch.TorchTrainer, job: TrainJob, coordinator: Any) -> None:
    """Run `trainer.fit` in a thread and follow it from the main thread, the only one that receives signals.

    Raises: Stopped after a signal, otherwise the error that ended the training early.
    """
    reporter = _StatusReporter()
    with stop_request() as request:
        try:
            error = _wait(run_in_thread(trainer.fit), coordinator, request, reporter)
        except KeyboardInterrupt:
            raise _stopped(job, request.signal_number or signal.SIGINT) from None
        reporter.report(status := ray.get(coordinator.status.remote()))
    if status.fatal_error is not None:
        raise status.fatal_error from error
    if request.signal_number is not None:
        raise _stopped(job, request.signal_number)
    if error is not None:
        raise _failure(error, reporter.stall) from error


def _wait(
    fitted: Future[Any], coordinator: Any, request: StopRequest, reporter: _StatusReporter
) -> BaseException | None:
    """Wait for `fit` and return its error, if any. After a stop request, wait only for active workers."""
    is_forwarded, idle_since = False, math.inf
    while not concurrent.futures.wait([fitted], timeout=1.0).done:
        reporter.report(status := ray.get(coordinator.status.remote()))
        if request.signal_number is not None and not is_forwarded:
            coordinator.request_stop.remote()
            log.warning(
                "    train  stopping after this step, with a checkpoint; press Ctrl-C again to stop at once"
            )
            is_forwarded = True
        idle_since = math.inf if status.is_running else min(idle_since, time.monotonic())
        if is_forwarded and time.monotonic() - idle_since > _EXIT_TIMEOUT_S:
            return None
    return fitted.exception()


class _StatusReporter:
    """Logs changes in a run's status."""

    def __init__(self) -> None:
        self.stall: str | None = None
        """The last stall; None once the run makes progress again."""

    def report(self, status: RunStatus) -> None:
        for line in status.lines:
            log.warning("    train  %s", line)
        if status.stall and self.stall is None:
            log.warning("    train  %s", status.stall)
        if status.stall or status.is_running:
            self.stall = status.stall


def _stopped(job: TrainJob, signal_number: int) -> Stopped:
    step = newest_step(job.run_uri)
    checkpoint = storage.join(job.run_uri, checkpoint_name(step)) if step else "no checkpoint yet"
    return Stopped(
        f"train: stopped; kept up to step {step} of {job.num_steps} ({checkpoint}); "
        "the same command continues",
        signal_number,
    )


def _failure(error: BaseException, stall: str | None) -> BaseException:
    """The RaysysError that caused a failed training, or else a ClusterError of one line."""
    if not isinstance(error, ray.train.TrainingFailedError):
        return error
    causes = list(getattr(error, "worker_failures", {}).values())
    causes += [cause] if (cause := getattr(error, "controller_failure", None)) else []
    for cause in causes:
        if isinstance(known := known_cause(cause), RaysysError) and not isinstance(known, ClusterError):
            return known
    reason = str(next(iter(causes), error)).strip().split("\n")[-1][:300]
    where = f"; {stall}" if stall else ""
    return ClusterError(
        f"train: the workers failed ({reason}{where}); run again to continue from the last checkpoint"
    )
