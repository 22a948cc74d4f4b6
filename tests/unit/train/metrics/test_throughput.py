"""Figures of a run by a clock that the test turns."""

from __future__ import annotations

import time

import pytest

from raysys.train.metrics.flops import training_flops_per_pair
from raysys.train.metrics.throughput import Throughput
from tests.unit.train.metrics.test_flops import small_config


class Clock:
    """A clock that moves when it is told to."""

    now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def steps(pace: Throughput, clock: Clock, waits: list[float], *, step_s: float) -> None:
    """A wait and a step of `step_s` for each of `waits`."""
    for seconds in waits:
        with pace.waiting():
            clock.now += seconds / 2
        with pace.waiting():
            clock.now += seconds / 2
        pace.begin_step()
        clock.now += step_s


def test_waits_are_a_share_and_the_first_one_stands_apart(clock: Clock) -> None:
    pace = Throughput(small_config(), share=8, workers=2, num_captions=1, device="cpu")
    steps(pace, clock, [30.0, 1.0, 2.0], step_s=4.0)
    found = pace.figures()
    # Three steps of 4 s and waits of 1 s and 2 s, behind a first batch that took 30 s.
    assert found["first_batch_s"] == 30.0
    assert found["data_wait"] == pytest.approx(3 / 15)
    assert found["pairs_per_s"] == pytest.approx(3 * 8 * 2 / 15)
    of_a_worker = 3 * 8 / 15 * training_flops_per_pair(small_config())
    assert found["model_tflops"] == pytest.approx(of_a_worker / 1e12)
    assert found["memory_mb"] > 50
    assert "mfu" not in found


def test_uneven_shares_count_as_their_mean(clock: Clock) -> None:
    pace = Throughput(small_config(), share=16 / 3, workers=3, num_captions=1, device="cpu")
    steps(pace, clock, [30.0, 1.0], step_s=3.0)
    assert pace.figures()["pairs_per_s"] == pytest.approx(2 * 16 / 7)


def test_figures_are_those_since_the_last_ones(clock: Clock) -> None:
    pace = Throughput(small_config(), share=8, workers=1, num_captions=1, device="cpu")
    steps(pace, clock, [30.0], step_s=4.0)
    with pace.waiting():
        clock.now += 5.0
    assert pace.figures()["data_wait"] == pytest.approx(5 / 9)
    clock.now += 4.0
    with pace.waiting():
        clock.now += 1.0
    assert pace.figures()["data_wait"] == pytest.approx(1 / 5)
