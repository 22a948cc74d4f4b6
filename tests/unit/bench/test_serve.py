"""What `bench serve` concludes from the steps of its load."""

from __future__ import annotations

import pytest

from raysys.bench.serve import Step, measurement_of, steps_to_saturation


def step(rate: int, answered: int, *, started: int, dropped: int = 0, p50_ms: float = 1.0) -> Step:
    """Ten seconds of load."""
    return Step(
        rate=rate,
        seconds=10.0,
        started=started,
        answered=answered,
        dropped=dropped,
        p50_ms=p50_ms,
        p95_ms=2 * p50_ms,
        p99_ms=3 * p50_ms,
        failed=0,
        changed=0,
        fresh_p99_ms=0.0,
        refused_p99_ms=0.0,
        generator_share=rate / 100,
        cpu_ms={"haproxy": 0.5, "others": 1.5},
    )


@pytest.mark.parametrize(
    ("answered", "dropped", "is_sustained"), [(100, 0, True), (95, 0, True), (94, 0, False), (100, 6, False)]
)
def test_step_is_sustained_if_95_percent_of_the_load_are_answered(
    answered: int, dropped: int, is_sustained: bool
) -> None:
    assert step(10, answered, started=100, dropped=dropped).is_sustained == is_sustained


def test_rate_is_the_most_answered_and_latencies_are_those_of_sustained_steps() -> None:
    steps = [
        step(10, 100, started=100, p50_ms=1.0),
        step(20, 198, started=200, p50_ms=2.0),
        step(30, 250, started=260, dropped=40, p50_ms=90.0),
    ]
    measured = measurement_of(steps)
    assert measured.rate == 25.0  # 250 in 10 s, though this step was not sustained
    metrics = measured.metrics
    assert (metrics["low p50"], metrics["low p95"], metrics["low p99"]) == (1.0, 2.0, 3.0)
    assert (metrics["p50"], metrics["p99"], metrics["sustained/s"]) == (2.0, 6.0, 19.8)
    assert metrics["answered"] == pytest.approx(298 / 300)
    assert (metrics["k6 share"], metrics["cpu ms"], metrics["haproxy cpu ms"]) == (0.3, 2.0, 0.5)
    assert "gateway cpu ms" not in metrics


def steps_of(
    capacity: int, rates: list[int], *, pauses: tuple[int, ...] = ()
) -> tuple[list[Step], list[int]]:
    """The steps of a service that answers up to `capacity`, and the rates that were run.

    The runs whose numbers are in `pauses` answer nothing.
    """
    asked: list[int] = []

    def run(rate: int) -> Step:
        asked.append(rate)
        answered = 0 if len(asked) - 1 in pauses else 10 * min(rate, capacity)
        return step(rate, answered, started=10 * rate)

    return steps_to_saturation(run, rates), asked


def test_rates_rise_to_saturation_and_then_halve_the_interval() -> None:
    steps, asked = steps_of(250, [100, 200, 400, 800])
    assert asked == [100, 200, 400, 400, 283, 283, 238]  # a step that is not sustained is run twice
    assert [(step.rate, step.is_sustained) for step in steps[2:]] == [(400, False), (283, False), (238, True)]
    assert measurement_of(steps).metrics["sustained/s"] == 238.0
    assert measurement_of(steps).rate == 250.0


def test_pause_of_the_machine_is_no_saturation() -> None:
    steps, asked = steps_of(1000, [100, 200, 400], pauses=(1,))
    assert asked == [100, 200, 200, 400]
    assert all(step.is_sustained for step in steps)


def test_service_that_is_saturated_at_the_lowest_rate_has_this_one_step() -> None:
    steps, asked = steps_of(50, [100, 200])
    assert (asked, measurement_of(steps).rate) == ([100, 100], 50.0)
