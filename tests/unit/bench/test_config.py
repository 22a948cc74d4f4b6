"""`raysys bench` accepts a section `bench`; the product's configuration refuses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.bench.config import BenchRunConfig
from raysys.config import load_config
from raysys.errors import ConfigError

CONFIG = str(Path(__file__).parents[3] / "configs" / "bench.yaml")


def test_bench_accepts_its_own_settings_and_those_of_the_product() -> None:
    config = load_config(CONFIG, ["bench.rounds=1", "train.batch_size=8"], BenchRunConfig)
    assert (config.bench.rounds, config.train.batch_size) == (1, 8)
    assert config.encoder.scratch.image_size_px == 256  # from configs/bench.yaml


def test_product_refuses_bench_settings() -> None:
    with pytest.raises(ConfigError, match=r"bench: unknown key"):
        load_config(CONFIG, ["bench.rounds=1"])


def test_misspelt_bench_setting_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"bench\.rouns: unknown key; did you mean 'rounds'\?"):
        load_config(CONFIG, ["bench.rouns=1"], BenchRunConfig)
