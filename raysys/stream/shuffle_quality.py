"""How well the training order is shuffled, relative to a uniform shuffle of the epoch (1.0)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysys.config.schema import StreamConfig
from raysys.shards.reader import ShardRef
from raysys.stream.order import rows_of, windows
from raysys.tracking.logs import log


@dataclass(frozen=True)
class ShuffleQuality:
    """Two ratios to a uniform shuffle of the epoch.

    `displacement`: the mean distance of a sample from its stored position (uniform: a third of the epoch).
    `batch_spread`: the mean number of different shards in a batch.
    """

    displacement: float
    batch_spread: float


def measure_shuffle_quality(
    shard_sizes: Sequence[int], *, seed: int, shards_per_window: int, batch_size: int
) -> ShuffleQuality:
    """The shuffle quality of the first epoch, computed from the plan without reading data."""
    total = sum(shard_sizes)
    shard_starts = np.cumsum([0, *shard_sizes])
    plan = windows(shard_sizes, seed=seed, shards_per_window=shards_per_window, start=0, stop=total)
    parts = []
    for window in plan:
        stored = np.concatenate(
            [np.arange(shard_starts[shard], shard_starts[shard + 1]) for shard in window.shards]
        )
        parts.append(stored[rows_of(window, len(stored))])
    order = np.concatenate(parts)
    displacement = np.abs(order - np.arange(total)).mean() / (total / 3)
    uniform = np.random.default_rng(seed).permutation(total)
    return ShuffleQuality(
        displacement=float(displacement),
        batch_spread=_mean_shards_per_batch(order, shard_starts, batch_size)
        / _mean_shards_per_batch(uniform, shard_starts, batch_size),
    )


def log_shuffle_quality(
    shards: Sequence[ShardRef], stream: StreamConfig, *, seed: int, batch_size: int
) -> None:
    """Log the shuffle quality of a training."""
    quality = measure_shuffle_quality(
        [shard.num_items for shard in shards],
        seed=seed,
        shards_per_window=stream.shuffle_window_shards,
        batch_size=batch_size,
    )
    log.info(
        "    train  %d shards; relative to a full shuffle: displacement %.2f, shards per batch %.2f",
        len(shards), quality.displacement, quality.batch_spread,
    )  # fmt: skip


def _mean_shards_per_batch(order: np.ndarray, shard_starts: np.ndarray, batch_size: int) -> float:
    shards = np.searchsorted(shard_starts, order, side="right") - 1
    batches = [shards[start : start + batch_size] for start in range(0, len(shards), batch_size)]
    return float(np.mean([len(np.unique(batch)) for batch in batches]))
