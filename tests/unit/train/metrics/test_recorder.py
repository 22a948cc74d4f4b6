"""Figures under names that Prometheus allows, set for a run, by gauges that write it down."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray.util.metrics

from raysys.tracking.metrics_log import record_validation
from raysys.train.metrics.recorder import Gauges, Recorder


@pytest.fixture
def newest(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Name -> the value that was set last."""
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


def test_steps_and_measurements_are_gauges(newest: dict[str, float], tmp_path: Path) -> None:
    record = Recorder([Gauges("small", str(tmp_path))])
    record(1, {"loss": 3.0})
    record(2, {"loss": 2.0})
    assert newest == {"raysys_train_step": 2, "raysys_train_loss": 2.0}
    for step, recall in ((8, 0.25), (16, 0.5)):
        record_validation(str(tmp_path), step, {"val_r@5": recall})
    record.flush()
    assert newest == {"raysys_train_step": 2, "raysys_train_loss": 2.0, "raysys_train_val_r_at_5": 0.5}


def test_other_ranks_tell_nobody() -> None:
    record = Recorder(())
    record(1, {"loss": 3.0})
    record.flush()
