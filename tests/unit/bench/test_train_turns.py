"""Contenders of `bench train` and `bench scaling` do their steps, and tell what was measured."""

from __future__ import annotations

import pytest

from raysys.bench import scaling, train
from raysys.bench.measure import Finding, Spread, Standing
from raysys.config.schema import BenchConfig, RayConfig, StreamConfig, TinyConfig, TrainConfig
from raysys.encoder import siglip
from raysys.encoder.text import TextPreprocessing
from raysys.encoder.tiny import build_tiny
from raysys.synth import generate_items

SIZE = TinyConfig(
    image_size_px=16,
    hidden_size=32,
    num_layers=1,
    num_heads=2,
    text_num_layers=1,
    vocab_size=400,
    max_length=8,
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> train.Work:
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    build_tiny(folder, [item.title for item in generate_items(200, 7)], SIZE, seed=7)
    return train.Work(
        str(folder),
        "shards",
        siglip.image_preprocessing_of(folder),
        TextPreprocessing(max_length=8),
        TrainConfig(batch_size=4),
        StreamConfig(),
        RayConfig(),
        num_warm_up=1,
        num_measured=2,
    )


@pytest.mark.parametrize("contender", [train.run_ours, train.run_transformers, train.run_towers])
def test_a_contender_tells_its_rate_and_step(contender: object, work: train.Work) -> None:
    assert callable(contender)
    trial = contender(work)
    assert trial.rate * trial.figures["step_s"] == pytest.approx(4)
    assert not {"data_wait", "mfu"} & set(trial.figures)


def standing(rate: float) -> Standing:
    return Standing(Spread(rate, rate, rate), 1.0, 1.0, 1, 0, {})


def finding(on_gpu: float) -> Finding:
    facts = {"flops_per_pair": 2e9, "gpu_hour_price": 3.0, "on_gpu": on_gpu}
    return Finding("case", "pairs/s", "p", "l", facts, {train.OURS_STREAM: standing(500.0)})


def test_the_papers_run_is_priced_on_a_gpu_alone() -> None:
    # 5,000,000 pairs at 500 a second are 10,000 s or 2.78 h, at 3 USD 8.33.
    assert train.conclusions([finding(1.0)])[-1].endswith("= 2.8 h on one such GPU, x 3.00 USD = 8 USD")
    on_cpu = train.conclusions([finding(0.0)])[-1]
    assert "tiny model" in on_cpu
    assert "USD" not in on_cpu


def test_the_plan_says_that_it_was_given_its_figures() -> None:
    lines = scaling.plan(BenchConfig(gpu_pairs_per_s=500.0, gpus=(1, 8)))
    assert lines[0].startswith("plan, not measured: 500 pairs/s of one GPU")
    # 512 pairs at 500 a second; 5 cores decode 100 each.
    assert lines[1].startswith("1 GPU: step 1024.0 ms")
    assert "efficiency 1.00, 500 pairs/s, 5 cores decode" in lines[1]
    assert lines[2].startswith("8 GPUs: ")
