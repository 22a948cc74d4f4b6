"""Throughput metrics, measured by a fake clock."""

from __future__ import annotations

import time

import pytest

from raysys.train.metrics.flops import training_flops_per_pair
from raysys.train.metrics.throughput import Throughput
from tests.unit.train.metrics.test_flops import small_config


class FakeClock:
    """A clock that the test advances."""

    now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def make_throughput(pairs_per_worker: float, workers: int) -> Throughput:
    return Throughput(
        small_config(), pairs_per_worker=pairs_per_worker, workers=workers, num_captions=1, device="cpu"
    )


def run_steps(throughput: Throughput, clock: FakeClock, waits_s: list[float], *, step_s: float) -> None:
    """A wait, in two parts, and a step of `step_s` for each of `waits_s`."""
    for wait_s in waits_s:
        for _ in range(2):
            with throughput.waiting_for_data():
                clock.now += wait_s / 2
        throughput.begin_step()
        clock.now += step_s


def test_data_wait_is_a_share_without_the_first_batch(clock: FakeClock) -> None:
    throughput = make_throughput(pairs_per_worker=8, workers=2)
    run_steps(throughput, clock, [30.0, 1.0, 2.0], step_s=4.0)
    values = throughput.metrics()
    # Three steps of 4 s and waits of 1 s and 2 s, after a first batch that took 30 s.
    assert values["first_batch_s"] == 30.0
    assert values["data_wait"] == pytest.approx(3 / 15)
    assert values["pairs_per_s"] == pytest.approx(3 * 8 * 2 / 15)
    flops_of_a_worker = 3 * 8 / 15 * training_flops_per_pair(small_config())
    assert values["model_tflops"] == pytest.approx(flops_of_a_worker / 1e12)
    assert values["memory_mb"] > 50
    assert "mfu" not in values


def test_uneven_shares_count_as_their_mean(clock: FakeClock) -> None:
    throughput = make_throughput(pairs_per_worker=16 / 3, workers=3)
    run_steps(throughput, clock, [30.0, 1.0], step_s=3.0)
    assert throughput.metrics()["pairs_per_s"] == pytest.approx(2 * 16 / 7)


def test_metrics_cover_the_steps_since_the_last_call(clock: FakeClock) -> None:
    throughput = make_throughput(pairs_per_worker=8, workers=1)
    run_steps(throughput, clock, [30.0], step_s=4.0)
    with throughput.waiting_for_data():
        clock.now += 5.0
    assert throughput.metrics()["data_wait"] == pytest.approx(5 / 9)
    clock.now += 4.0
    with throughput.waiting_for_data():
        clock.now += 1.0
    assert throughput.metrics()["data_wait"] == pytest.approx(1 / 5)
