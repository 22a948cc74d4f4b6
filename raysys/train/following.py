"""What the driver says of a run while it waits for it: a bar, and lines that are worth one."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from raysys import observe, storage
from raysys.errors import Stopped
from raysys.train.checkpoint import checkpoint_name, newest_step
from raysys.train.metrics import read_metrics
from raysys.train.watch import News
from raysys.train.worker.job import TrainJob

Made = TypeVar("Made")


class Following:
    """One run's, from the figures that rank 0 writes and from the `Watch`."""

    def __init__(self, job: TrainJob, advance: observe.Advance) -> None:
        self._job, self._advance, self._measured = job, advance, newest_step(job.run_uri)
        self.stall: str | None = None
        """Who kept the others waiting when nothing moved; kept until something moves again."""

    def look(self) -> None:
        """Move the bar, and say what was measured since."""
        rows = read_metrics(self._job.run_uri)
        self._advance(int(rows[-1]["step"]) if rows else 0)
        for row in rows:
            if row["step"] > self._measured and "val_r@1" in row:
                self._measured = int(row["step"])
                _log_progress(self._job, rows, row)

    def hear(self, news: News) -> None:
        """Say what the workers wanted to be known."""
        for line in news.lines:
            observe.log.warning("    train  %s", line)
        if news.stall and self.stall is None:
            observe.log.warning("    train  %s", news.stall)
        if news.stall or news.is_running:
            self.stall = news.stall


def in_background(work: Callable[[], Made]) -> Future[Made]:
    """What `work` comes to in a thread that holds up nobody's exit."""
    future: Future[Made] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def stopped(job: TrainJob, number: int) -> Stopped:
    """The line that a signal's sender reads."""
    step = newest_step(job.run_uri)
    kept = storage.join(job.run_uri, checkpoint_name(step)) if step else "no checkpoint yet"
    return Stopped(
        f"train: stopped; kept up to step {step} of {job.num_steps} ({kept}); the same command continues",
        number,
    )


def _log_progress(job: TrainJob, rows: list[dict[str, float]], row: dict[str, float]) -> None:
    latest = next((r for r in reversed(rows) if "loss" in r), {"loss": math.nan, "pairs_per_s": math.nan})
    observe.log.info(
        "    train  step %d/%d  loss %.3f  %.0f pairs/s  photo finds its title: R@1 %.3f R@10 %.3f",
        row["step"], job.num_steps, latest["loss"], latest["pairs_per_s"], row["val_r@1"], row["val_r@10"],
    )  # fmt: skip
