"""Recording of a training's metrics by rank 0: `metrics.jsonl` beside the checkpoints, W&B, Prometheus."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import ray.util.metrics

from raysys.tracking.metrics_log import MetricsLog, read_validations
from raysys.tracking.wandb import TrackedRun, open_wandb_logger


@contextlib.contextmanager
def open_recorder(run: TrackedRun, step: int, *, is_main: bool) -> Iterator[MetricsRecorder]:
    """The recorder of a run that continues after `step`; flushed when the block ends.

    On ranks other than 0 it records nothing.
    """
    if not is_main:
        yield MetricsRecorder(())
        return
    metrics_log = MetricsLog(run.uri, continue_after=step)
    with open_wandb_logger(run, continue_after=step) as wandb_logger:
        gauges = PrometheusGauges(run.name, run.uri)
        recorder = MetricsRecorder([metrics_log, *([wandb_logger] if wandb_logger else []), gauges])
        try:
            yield recorder
        finally:
            recorder.flush()


class MetricsSink(Protocol):
    """A destination of metrics."""

    def add(self, step: int, values: dict[str, float]) -> None: ...

    def flush(self) -> None: ...


class MetricsRecorder:
    """Passes the metrics of a step to every sink."""

    def __init__(self, sinks: Sequence[MetricsSink]) -> None:
        self._sinks = sinks

    def add(self, step: int, values: dict[str, float]) -> None:
        """Record the metrics of a step."""
        for sink in self._sinks:
            sink.add(step, values)

    def flush(self) -> None:
        """Make all that was recorded survive a kill; call it before a checkpoint."""
        for sink in self._sinks:
            sink.flush()


class PrometheusGauges:
    """The newest metrics through Ray's metrics API as `raysys_train_<metric>`, tagged with the run.

    All are gauges: a counter would restart at 0 with the process, but the number of samples does not.
    """

    def __init__(self, run_name: str, run_uri: str) -> None:
        self._run_uri, self._tags = run_uri, {"run": run_name}
        self._gauges: dict[str, ray.util.metrics.Gauge] = {}
        self._validated_steps: frozenset[int] = frozenset()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Set the gauges of a step."""
        self._set({"step": step, **values})

    def flush(self) -> None:
        """Set the gauges of new validations."""
        for row in read_validations(self._run_uri, without=self._validated_steps):
            self._set({name: value for name, value in row.items() if name != "step"})
            self._validated_steps |= {int(row["step"])}

    def _set(self, values: Mapping[str, float]) -> None:
        for name, value in prometheus_names(values).items():
            if name not in self._gauges:
                self._gauges[name] = ray.util.metrics.Gauge(name, "Metric of raysys train", tag_keys=("run",))
            self._gauges[name].set(value, self._tags)


def prometheus_names(values: Mapping[str, float]) -> dict[str, float]:
    """The same values under names that Prometheus allows."""
    return {f"raysys_train_{name.replace('@', '_at_')}": value for name, value in values.items()}
