"""How well the order of training mixes: what a shuffle of the whole epoch would give is 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysys.stream.order import rows_of, windows


@dataclass(frozen=True)
class ShuffleQuality:
    """Both relative to a uniform shuffle of the epoch.

    `displacement`: how far a sample moves from its stored place to its place in the order (uniform: a third
    of the epoch on average). `batch_spread`: how many different shards a batch draws from.
    """

    displacement: float
    batch_spread: float


def measure_shuffle_quality(
    shard_sizes: Sequence[int], *, seed: int, shards_per_window: int, batch_size: int
) -> ShuffleQuality:
    """The mixing of the first epoch, from the plan alone."""
    total = sum(shard_sizes)
    firsts = np.cumsum([0, *shard_sizes])
    plan = windows(shard_sizes, seed=seed, shards_per_window=shards_per_window, start=0, stop=total)
    places = []
    for window in plan:
        stored = np.concatenate([np.arange(firsts[shard], firsts[shard + 1]) for shard in window.shards])
        places.append(stored[rows_of(window, len(stored))])
    order = np.concatenate(places)
    displacement = np.abs(order - np.arange(total)).mean() / (total / 3)
    return ShuffleQuality(
        displacement=float(displacement),
        batch_spread=_spread(order, firsts, batch_size)
        / _spread(np.random.default_rng(seed).permutation(total), firsts, batch_size),
    )


def _spread(order: np.ndarray, firsts: np.ndarray, batch_size: int) -> float:
    shards = np.searchsorted(firsts, order, side="right") - 1
    batches = [shards[start : start + batch_size] for start in range(0, len(shards), batch_size)]
    return float(np.mean([len(np.unique(batch)) for batch in batches]))
