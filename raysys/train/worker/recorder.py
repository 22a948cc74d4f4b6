"""Where a run's figures go: `metrics.jsonl` beside its checkpoints, W&B, Prometheus. Rank 0 alone tells."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import ray.util.metrics

from raysys.train.metrics import MetricsFile
from raysys.train.telling import telling
from raysys.train.worker.job import TrainJob


class Listener(Protocol):
    """One who is told of figures, and asked now and then to keep what was told."""

    def add(self, step: int, values: dict[str, float]) -> None: ...

    def flush(self) -> None: ...


class Recorder:
    """Hands figures of a step to all who listen; on other ranks than 0 that is nobody."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def __call__(self, step: int, values: dict[str, float]) -> None:
        for listener in self._listeners:
            listener.add(step, values)

    def flush(self) -> None:
        """What was told so far survives a kill: to be called before a checkpoint."""
        for listener in self._listeners:
            listener.flush()


class Gauges:
    """The newest figures as Ray's own metrics, `raysys_train_<figure>`, tagged with the run.

    Gauges all of them: a counter would begin at 0 again after a restart, and the samples do not.
    """

    def __init__(self, run_name: str) -> None:
        self._tags, self._gauges = {"run": run_name}, dict[str, ray.util.metrics.Gauge]()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Set the gauges."""
        for name, value in prometheus_names({"step": step, **values}).items():
            if name not in self._gauges:
                self._gauges[name] = ray.util.metrics.Gauge(name, "Of raysys train", tag_keys=("run",))
            self._gauges[name].set(value, self._tags)

    def flush(self) -> None:
        """Ray sends them by itself."""


def prometheus_names(values: Mapping[str, float]) -> dict[str, float]:
    """The same figures under names that Prometheus allows."""
    return {f"raysys_train_{name.replace('@', '_at_')}": value for name, value in values.items()}


@contextlib.contextmanager
def recorder(job: TrainJob, step: int, *, is_main: bool) -> Iterator[Recorder]:
    """A recorder of a run that continues after `step`; at the end of the block nothing is left untold."""
    if not is_main:
        yield Recorder(())
        return
    figures = MetricsFile(job.run_uri, continue_after=step)
    with telling(job.tracked, continue_after=step) as teller:
        record = Recorder([figures, *([teller] if teller else []), Gauges(job.run_name)])
        try:
            yield record
        finally:
            record.flush()
