"""Ranking metrics: nDCG, hit rate and precision of ranked gains, the ranking itself, and its scores.

One row a query, columns in ranked order. Rows of unequal length are padded; padding has gain 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray

# A separate random stream: with the plain seed, the order of ties would be correlated with taps that were
# simulated from the same seed.
_TIEBREAK_STREAM = 0x71E

Gains: TypeAlias = Shaped[ndarray, "queries ranks"]  # booleans or numbers from 0 up
PerQuery: TypeAlias = Float[ndarray, " queries"]
Score: TypeAlias = Callable[
    [Float[ndarray, "queries dim"], Float[ndarray, "items dim"]], Float[ndarray, "queries items"]
]
"""Compares every query with every item."""


def inner_products(
    queries: Float[ndarray, "queries dim"], vectors: Float[ndarray, "items dim"]
) -> Float[ndarray, "queries items"]:
    """The exact scores of L2-normalised vectors."""
    return np.asarray(queries @ vectors.T)


def ndcg_at(k: int, gains: Gains) -> PerQuery:
    """DCG of the first `k` ranks divided by that of the ideal order (Järvelin & Kekäläinen 2002).

    The gain at rank r (from 1) is divided by log2(r + 1). The ideal order is the same gains sorted,
    also cut at `k`. A row without any gain scores 0.
    """
    values = np.asarray(gains, dtype=np.float64)
    ideal_order = -np.sort(-values, axis=1)
    dcg, ideal_dcg = _discounted_sum(_first(k, values)), _discounted_sum(_first(k, ideal_order))
    scores = np.zeros(len(values))
    np.divide(dcg, ideal_dcg, out=scores, where=ideal_dcg > 0)
    return scores


def hit_at(k: int, gains: Gains) -> PerQuery:
    """1.0 if any of the first `k` ranks has a gain, else 0.0."""
    return np.asarray((_first(k, gains) > 0).any(axis=1), dtype=np.float64)


def precision_at(k: int, gains: Gains) -> PerQuery:
    """Share of the first `k` ranks that have a gain; a row shorter than `k` has misses at its end."""
    return np.asarray((_first(k, gains) > 0).sum(axis=1) / k)


def rank_by(
    scores: Float[ndarray, "queries shown"],
    gains: Shaped[ndarray, "queries shown"],
    shown: Bool[ndarray, "queries shown"],
    *,
    seed: int,
) -> Float[ndarray, "queries shown"]:
    """The gains by descending score: shown items first, then padding with gain 0.

    NaN ranks after every number. Ties are broken at random by `seed`: if they kept the order of the log,
    constant scores would inherit the quality of the logged ranking.
    """
    tiebreak = np.random.default_rng((_TIEBREAK_STREAM, seed)).random(scores.shape)
    is_missing = np.isnan(scores)
    keys = (tiebreak, np.where(is_missing, 0.0, -scores), is_missing, ~shown)
    order = np.lexsort(keys, axis=1)  # the last key is the primary one
    shown_gains = np.where(shown, gains, 0).astype(np.float64)
    return np.take_along_axis(shown_gains, order, axis=1)


def _first(k: int, gains: Gains) -> Shaped[ndarray, "queries first"]:
    if k < 1:
        raise ValueError(f"k is {k}; it counts ranks from 1")
    return gains[:, :k]


def _discounted_sum(gains: Gains) -> PerQuery:
    ranks = np.arange(1, gains.shape[1] + 1)
    return np.asarray(gains @ (1.0 / np.log2(ranks + 1)))
