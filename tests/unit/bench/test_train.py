"""Contenders of `bench train` take their steps and report metrics; only a GPU gets a price."""

from __future__ import annotations

import pytest

from raysys.bench import train
from raysys.bench.measure import CaseResult, ContenderResult, Spread
from raysys.config.schema import RayConfig, ScratchConfig, StreamConfig, TrainConfig
from raysys.encoder import siglip
from raysys.encoder.text import TextPreprocessing
from raysys.synth import generate_items
from tests.factories import tiny_checkpoint

SIZE = ScratchConfig(
    image_size_px=16,
    hidden_size=32,
    num_layers=1,
    num_heads=2,
    text_num_layers=1,
    vocab_size=400,
    max_length=8,
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> train.TrainWork:
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    tiny_checkpoint(folder, [item.title for item in generate_items(200, 7)], SIZE)
    return train.TrainWork(
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


@pytest.mark.parametrize("contender", [train.run_raysys, train.run_transformers, train.run_towers])
def test_contender_reports_rate_and_step_time(contender: object, work: train.TrainWork) -> None:
    assert callable(contender)
    measurement = contender(work)
    assert measurement.rate * measurement.metrics["step_s"] == pytest.approx(4)
    assert not {"data_wait", "mfu"} & set(measurement.metrics)


def case_result(on_gpu: float) -> CaseResult:
    contender = ContenderResult(Spread(500.0, 500.0, 500.0), 1.0, 1.0, 1, 0, {})
    properties = {"flops_per_pair": 2e9, "gpu_hour_price": 3.0, "on_gpu": on_gpu}
    return CaseResult("case", "pairs/s", "baseline", "limit", properties, {train.RAYSYS_STREAM: contender})


def test_published_run_is_priced_only_on_a_gpu() -> None:
    # 5,000,000 pairs at 500 a second are 10,000 s or 2.78 h, at 3 USD 8.33.
    assert train.conclusions([case_result(1.0)])[-1].endswith("= 2.8 h on one such GPU, x 3.00 USD = 8 USD")
    on_cpu = train.conclusions([case_result(0.0)])[-1]
    assert "tiny model" in on_cpu
    assert "USD" not in on_cpu
