"""Shuffle quality of plans for which it is known."""

from __future__ import annotations

import pytest

from raysys.stream.shuffle_quality import measure_shuffle_quality


def test_one_window_of_all_shards_is_a_uniform_shuffle() -> None:
    quality = measure_shuffle_quality([100] * 20, seed=7, shards_per_window=20, batch_size=50)
    assert quality.displacement == pytest.approx(1.0, abs=0.1)
    assert quality.batch_spread == pytest.approx(1.0, abs=0.05)


def test_windows_of_one_shard_give_batches_of_one_shard() -> None:
    # 100 samples per shard and 50 per batch: each batch has one shard, 18.5 in a uniform shuffle.
    quality = measure_shuffle_quality([100] * 20, seed=7, shards_per_window=1, batch_size=50)
    assert quality.batch_spread == pytest.approx(1 / 18.5, abs=0.01)
    assert quality.displacement > 0.7  # the shards themselves are shuffled


def test_one_shard_has_the_spread_of_a_uniform_shuffle() -> None:
    quality = measure_shuffle_quality([64], seed=7, shards_per_window=4, batch_size=8)
    assert quality.batch_spread == 1.0
