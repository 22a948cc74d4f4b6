"""Gateways are added by the share of the time in which they work."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raysys.serve import gateway_scaling
from raysys.serve.gateway_scaling import BUSY, BusyTime, num_gateways


def context(*shares: float, target: int = 3) -> Any:
    metrics = {BUSY: dict(enumerate(shares))} if shares else None
    return SimpleNamespace(aggregated_metrics=metrics, target_num_replicas=target)


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [((1.0,), 1 / 0.6), ((0.9, 0.9), 3.0), ((0.3, 0.3), 1.0), ((0.6, 0.6), 2.0), ((0.0,), 0.0)],
)
def test_as_many_gateways_as_have_the_target_share(shares: tuple[float, ...], wanted: float) -> None:
    assert num_gateways(context(*shares))[0] == pytest.approx(wanted)


def test_without_a_metric_the_number_stays() -> None:
    assert num_gateways(context())[0] == 3


@pytest.mark.parametrize(
    ("event_loop_s", "process_s", "share"),
    [(5.0, 5.0, 0.5), (5.0, 9.0, 0.5), (1.0, 17.0, 0.8)],  # in 10 s; two threads
)
def test_busy_is_the_event_loop_or_the_threads(
    monkeypatch: pytest.MonkeyPatch, event_loop_s: float, process_s: float, share: float
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    times = iter([(100.0, 1.0, 2.0), (110.0, 1.0 + event_loop_s, 2.0 + process_s)])
    monkeypatch.setattr(gateway_scaling, "_now", lambda: gateway_scaling._CpuTimes(*next(times)))
    busy = BusyTime(num_threads=2)
    assert busy.share() == 0.0  # the thread that makes the object may be another one
    assert busy.share() == pytest.approx(share)
