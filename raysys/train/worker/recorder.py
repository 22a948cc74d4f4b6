"""Where a run's figures go: `metrics.jsonl` beside its checkpoints, and W&B. Rank 0 alone writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from raysys import observe
from raysys.train.metrics import MetricsFile
from raysys.train.worker.job import TrainJob

Record: TypeAlias = Callable[[int, dict[str, float]], None]


@contextlib.contextmanager
def recorder(job: TrainJob, step: int, *, is_main: bool) -> Iterator[Record]:
    """A function that keeps figures of a step; on other ranks than 0 it does nothing."""
    if not is_main:
        yield lambda step, values: None
        return
    figures = MetricsFile(job.run_uri, continue_after=step)
    with observe.tracking(job.run_name, job.run_uri, job.config, **job.tracking.model_dump()) as tracker:

        def record(step: int, values: dict[str, float]) -> None:
            if values:
                figures.append(step, values)
                tracker.log({f"train/{name}": value for name, value in values.items()}, step)

        yield record
