"""What the driver hears of a run while it waits for it."""

from __future__ import annotations

from raysys import observe, storage
from raysys.errors import Stopped
from raysys.train.driver.watch import News
from raysys.train.run.checkpoint import checkpoint_name
from raysys.train.run.registry import newest_step
from raysys.train.worker.job import TrainJob


class Hearing:
    """One run's: says what comes from its `Watch`."""

    def __init__(self) -> None:
        self.stall: str | None = None
        """Who kept the others waiting when nothing moved; kept until something moves again."""

    def hear(self, news: News) -> None:
        """Say what the workers wanted to be known."""
        for line in news.lines:
            observe.log.warning("    train  %s", line)
        if news.stall and self.stall is None:
            observe.log.warning("    train  %s", news.stall)
        if news.stall or news.is_running:
            self.stall = news.stall


def stopped(job: TrainJob, number: int) -> Stopped:
    """The line that a signal's sender reads."""
    step = newest_step(job.run_uri)
    kept = storage.join(job.run_uri, checkpoint_name(step)) if step else "no checkpoint yet"
    return Stopped(
        f"train: stopped; kept up to step {step} of {job.num_steps} ({kept}); the same command continues",
        number,
    )
