"""Throughput, model FLOPs and weight changes of training steps."""

from __future__ import annotations

import time

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from raysys.encoder.siglip import image_features, text_features
from raysys.train.metrics.step_metrics import Throughput, WeightChange, peak_flops, training_flops_per_pair


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


def small_config() -> transformers.SiglipConfig:
    """Two towers in which all sizes differ."""
    return transformers.SiglipConfig(
        text_config={
            "vocab_size": 50,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "max_position_embeddings": 10,
            "projection_size": 32,
            "pad_token_id": 1,
            "bos_token_id": None,
            "eos_token_id": 1,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 56,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
    )


def test_formula_equals_the_count_of_torch() -> None:
    config = small_config()
    config._attn_implementation = "eager"  # so that torch counts the products of the attention
    model = transformers.SiglipModel(config)
    pixels, tokens = torch.zeros(5, 3, 32, 32), torch.ones(5, 10, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        (image_features(model, pixels).sum() + text_features(model, tokens).sum()).backward()
    assert counter.get_total_flops() / 5 == pytest.approx(training_flops_per_pair(config), rel=1e-3)


def test_every_further_caption_costs_the_same() -> None:
    config = small_config()
    one, two, three = (training_flops_per_pair(config, number) for number in (1, 2, 3))
    assert two - one == three - two > 0


def test_flops_of_the_base_model_at_256_pixels() -> None:
    config = transformers.SiglipConfig(vision_config={"image_size": 256, "patch_size": 16})
    # 12 layers x (4 x 768^2 + 2 x 768 x 3072) = 85 M multiplications a token in each tower: 256 patches and
    # 64 tokens make 27 G, attention 1.2 G, the rest 0.5 G; six operations each.
    assert training_flops_per_pair(config) == pytest.approx(6 * 28.9e9, rel=0.01)


@pytest.mark.parametrize(
    ("name", "peak"), [("NVIDIA H200", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("A card", None)]
)
def test_peak_is_looked_up_by_device_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


def test_norm_and_ratio_cover_the_trained_weights() -> None:
    model = torch.nn.Linear(2, 1)
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 3.0]]))
        model.bias.copy_(torch.tensor([6.0]))  # sqrt(4 + 9 + 36) = 7
        change = WeightChange(torch.nn.Sequential(model, frozen))
        model.weight.add_(torch.tensor([[0.3, 0.4]]))  # an update of norm 0.5
    values = change.metrics()
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
    assert change.metrics()["update_ratio"] == pytest.approx(exact, rel=0.05)
