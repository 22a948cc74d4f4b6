"""The driver while a training runs: it hears of it, passes on a wish to stop, and says why it ended."""

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

from raysys import observe
from raysys.errors import ClusterError, RaysysError, known_cause
from raysys.train.background import in_background
from raysys.train.driver.hearing import Hearing, stopped
from raysys.train.driver.signals import StopWish, stop_wish
from raysys.train.worker.job import TrainJob

_LEAVE_AFTER_S = 5.0  # for Ray to list the last checkpoint and end


def wait_for_end(trainer: ray.train.torch.TorchTrainer, job: TrainJob, watch: Any) -> None:
    """Follow the training to its end, from the main thread: signals come to no other.

    Raises: Stopped if a signal asked for the end, else why the training ended too early.
    """
    with stop_wish() as wish:
        hearing = Hearing()
        try:
            error = _follow(in_background(trainer.fit), watch, wish, hearing)
        except KeyboardInterrupt:
            raise stopped(job, wish.number or signal.SIGINT) from None
        hearing.hear(news := ray.get(watch.news.remote()))
    if news.verdict is not None:
        raise news.verdict from error
    if wish.number is not None:
        raise stopped(job, wish.number)
    if error is not None:
        raise _failure(error, hearing.stall) from error


def _follow(fitted: Future[Any], watch: Any, wish: StopWish, hearing: Hearing) -> BaseException | None:
    """What fit raised, if it did; after a wish to stop it is not waited for longer than it does work."""
    is_told, idle_since = False, math.inf
    while not concurrent.futures.wait([fitted], timeout=1.0).done:
        hearing.hear(news := ray.get(watch.news.remote()))
        if wish.number is not None and not is_told:
            watch.ask_to_stop.remote()
            observe.log.warning(
                "    train  ends after this step, with a checkpoint; once more ends it at once"
            )
            is_told = True
        is_at_work = news.is_running and not news.has_ended
        idle_since = math.inf if is_at_work else min(idle_since, time.monotonic())
        if is_told and time.monotonic() - idle_since > _LEAVE_AFTER_S:
            return (
                None  # no worker is there to hear of it, or checkpoints are measured, which the next run does
            )
    return fitted.exception()


def _failure(error: BaseException, stall: str | None) -> BaseException:
    """What ended the training as one line, if its cause is one that we know."""
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
