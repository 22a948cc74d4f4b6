"""How well the order mixes, on plans whose mixing is known."""

from __future__ import annotations

import pytest

from raysys.stream.shuffle_quality import measure_shuffle_quality


def test_one_window_of_all_shards_is_a_uniform_shuffle() -> None:
    found = measure_shuffle_quality([100] * 20, seed=7, shards_per_window=20, batch_size=50)
    assert found.displacement == pytest.approx(1.0, abs=0.1)
    assert found.batch_spread == pytest.approx(1.0, abs=0.05)


def test_single_shards_give_batches_of_one_shard() -> None:
    # 100 samples a shard and 50 a batch: each batch is of one shard, of the 18.5 that a shuffle gives.
    found = measure_shuffle_quality([100] * 20, seed=7, shards_per_window=1, batch_size=50)
    assert found.batch_spread == pytest.approx(1 / 18.5, abs=0.01)
    assert found.displacement > 0.7  # shards travel, if not apart


def test_single_shard_cannot_be_mixed_better() -> None:
    found = measure_shuffle_quality([64], seed=7, shards_per_window=4, batch_size=8)
    assert found.batch_spread == 1.0
