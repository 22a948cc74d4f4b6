"""Where a run's figures go: `metrics.jsonl` beside its checkpoints, W&B, Prometheus. Rank 0 alone tells."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import ray.util.metrics

from raysys.tracking.metrics_log import MetricsFile, read_validations
from raysys.tracking.wandb import LOOK_EVERY_S, open_wandb_logger
from raysys.train.job import TrainJob


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

    def __init__(self, run_name: str, run_uri: str) -> None:
        self._run_uri, self._tags = run_uri, {"run": run_name}
        self._gauges: dict[str, ray.util.metrics.Gauge] = {}
        self._measured: frozenset[int] = frozenset()
        self._looked_at = time.monotonic()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Set the gauges of a step, and now and then those of measurements."""
        self._set({"step": step, **values})
        if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Set the gauges of measurements that are new."""
        self._looked_at = time.monotonic()
        for row in read_validations(self._run_uri, without=self._measured):
            self._set({name: value for name, value in row.items() if name != "step"})
            self._measured |= {int(row["step"])}

    def _set(self, values: Mapping[str, float]) -> None:
        for name, value in prometheus_names(values).items():
            if name not in self._gauges:
                self._gauges[name] = ray.util.metrics.Gauge(name, "Of raysys train", tag_keys=("run",))
            self._gauges[name].set(value, self._tags)


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
    with open_wandb_logger(job.tracked, continue_after=step) as teller:
        record = Recorder([figures, *([teller] if teller else []), Gauges(job.run_name, job.run_uri)])
        try:
            yield record
        finally:
            record.flush()
