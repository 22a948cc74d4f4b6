"""Metrics reach Prometheus under names that it allows; the gauges are fakes that store their values."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray.util.metrics

from raysys.tracking.metrics_log import record_validation
from raysys.tracking.recorder import MetricsRecorder, PrometheusGauges


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Name -> last value of every gauge."""
    values: dict[str, float] = {}

    class Gauge:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            assert tag_keys == ("run",)
            self._name = name

        def set(self, value: float, tags: dict[str, str]) -> None:
            assert tags == {"run": "small"}
            values[self._name] = value

    monkeypatch.setattr(ray.util.metrics, "Gauge", Gauge)
    return values


def test_steps_and_validations_set_gauges(gauges: dict[str, float], tmp_path: Path) -> None:
    recorder = MetricsRecorder([PrometheusGauges("small", str(tmp_path))])
    recorder.add(1, {"loss": 3.0})
    recorder.add(2, {"loss": 2.0})
    assert gauges == {"raysys_train_step": 2, "raysys_train_loss": 2.0}
    for step, recall in ((8, 0.25), (16, 0.5)):
        record_validation(str(tmp_path), step, {"val_r@5": recall})
    recorder.flush()
    assert gauges == {"raysys_train_step": 2, "raysys_train_loss": 2.0, "raysys_train_val_r_at_5": 0.5}


def test_recorder_without_sinks_accepts_metrics() -> None:
    recorder = MetricsRecorder(())
    recorder.add(1, {"loss": 3.0})
    recorder.flush()
