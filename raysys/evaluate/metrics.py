"""How well an order is: nDCG, hit rate and precision of ranked gains, and the ranking itself.

One row a query, columns in ranked order. Rows of unequal length are padded; padding has gain 0.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray

_TIEBREAK_STREAM = (
    0x71E  # a stream of its own: taps drawn from the same seed must not foretell the order of ties
)

Gains: TypeAlias = Shaped[ndarray, "queries ranks"]  # booleans or numbers from 0 up
PerQuery: TypeAlias = Float[ndarray, " queries"]


def ndcg_at(k: int, gains: Gains) -> PerQuery:
    """Discounted gain of the first `k` over that of the best order (Järvelin & Kekäläinen 2002).

    The gain at rank r (from 1) is divided by log2(r + 1). The best order is the same gains sorted,
    cut at `k` as well. A row without any gain scores 0.
    """
    values = np.asarray(gains, dtype=np.float64)
    best = -np.sort(-values, axis=1)
    dcg, ideal = _discounted(_first(k, values)), _discounted(_first(k, best))
    scores = np.zeros(len(values))
    np.divide(dcg, ideal, out=scores, where=ideal > 0)
    return scores


def hit_at(k: int, gains: Gains) -> PerQuery:
    """1.0 where any of the first `k` has a gain, else 0.0."""
    return np.asarray((_first(k, gains) > 0).any(axis=1), dtype=np.float64)


def precision_at(k: int, gains: Gains) -> PerQuery:
    """Share of the first `k` places that have a gain; a row shorter than `k` has misses at its end."""
    return np.asarray((_first(k, gains) > 0).sum(axis=1) / k)


def rank_by(
    scores: Float[ndarray, "queries shown"],
    gains: Shaped[ndarray, "queries shown"],
    shown: Bool[ndarray, "queries shown"],
    *,
    seed: int,
) -> Float[ndarray, "queries shown"]:
    """The gains in the order of descending score: what was shown first, then padding with gain 0.

    Ties are broken at random by `seed`: in the order of the log, constant scores would inherit
    the merit of the shelf that was logged. NaN stands after every number.
    """
    tiebreak = np.random.default_rng((_TIEBREAK_STREAM, seed)).random(scores.shape)
    unknown = np.isnan(scores)
    keys = (tiebreak, np.where(unknown, 0.0, -scores), unknown, ~shown)
    order = np.lexsort(keys, axis=1)  # the last key decides first
    real_gains = np.where(shown, gains, 0).astype(np.float64)
    return np.take_along_axis(real_gains, order, axis=1)


def _first(k: int, gains: Gains) -> Shaped[ndarray, "queries first"]:
    if k < 1:
        raise ValueError(f"k is {k}; it counts ranks from 1")
    return gains[:, :k]


def _discounted(gains: Gains) -> PerQuery:
    ranks = np.arange(1, gains.shape[1] + 1)
    return np.asarray(gains @ (1.0 / np.log2(ranks + 1)))
