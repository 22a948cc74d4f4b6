"""Throughput, model FLOPs and weight changes of training steps."""

from __future__ import annotations

import time

import pytest
import torch
import transformers

from raysys.config.schema import TrainConfig
from raysys.encoder.flops import training_flops_per_pair
from raysys.train.step_metrics import StepResult, Throughput, WeightChange
from tests.unit.encoder.small_towers import small_config


class FakeClock:
    """A clock that the test advances."""

    now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def make_throughput(batch_size: int, workers: int) -> Throughput:
    model = transformers.SiglipModel(small_config())
    return Throughput(model, TrainConfig(batch_size=batch_size), workers=workers, device="cpu")


def run_steps(throughput: Throughput, clock: FakeClock, waits_s: list[float], *, step_s: float) -> None:
    """A wait, in two parts, and a step of `step_s` for each of `waits_s`."""
    for wait_s in waits_s:
        for _ in range(2):
            with throughput.waiting_for_data():
                clock.now += wait_s / 2
        throughput.begin_step()
        clock.now += step_s
        throughput.end_step()


def test_data_wait_is_a_share_without_the_first_batch(clock: FakeClock) -> None:
    throughput = make_throughput(batch_size=16, workers=2)
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
    throughput = make_throughput(batch_size=16, workers=3)
    run_steps(throughput, clock, [30.0, 1.0], step_s=3.0)
    assert throughput.metrics()["pairs_per_s"] == pytest.approx(2 * 16 / 7)


def test_metrics_cover_the_steps_since_the_last_call(clock: FakeClock) -> None:
    throughput = make_throughput(batch_size=8, workers=1)
    run_steps(throughput, clock, [30.0], step_s=4.0)
    with throughput.waiting_for_data():
        clock.now += 5.0
    assert throughput.metrics()["data_wait"] == pytest.approx(5 / 9)
    clock.now += 4.0
    with throughput.waiting_for_data():
        clock.now += 1.0
    assert throughput.metrics()["data_wait"] == pytest.approx(1 / 5)


def test_result_of_a_step_is_plain_floats() -> None:
    result = StepResult({"loss": torch.tensor(2.5), "bias": torch.tensor([-10.0], dtype=torch.float64)})
    assert result.metrics() == {"loss": 2.5, "bias": -10.0}


def test_norm_and_ratio_cover_the_trained_weights() -> None:
    model = torch.nn.Linear(2, 1)
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 3.0]]))
        model.bias.copy_(torch.tensor([6.0]))  # sqrt(4 + 9 + 36) = 7
        change = WeightChange(torch.nn.Sequential(model, frozen))
        model.weight.add_(torch.tensor([[0.3, 0.4]]))  # an update of norm 0.5
    values = {name: float(value) for name, value in change.metrics().items()}
    assert values["update_ratio"] == pytest.approx(0.5 / 7)
    assert values["weight_norm"] == pytest.approx((2.3**2 + 3.4**2 + 36) ** 0.5)


def test_ratio_of_a_large_matrix_is_close_to_the_exact_one() -> None:
    torch.manual_seed(1)
    model = torch.nn.Linear(700, 301, bias=False)
    update = 0.01 * torch.randn(301, 700)
    exact = float(update.norm() / model.weight.detach().norm())
    with torch.no_grad():
        change = WeightChange(model)
        model.weight.add_(update)
    assert float(change.metrics()["update_ratio"]) == pytest.approx(exact, rel=0.05)
