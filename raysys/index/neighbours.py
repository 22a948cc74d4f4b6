"""Neighbours as arrays: exact ones in blocks of bounded memory, merged results, the recall of a result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys.index.device import CPU, Device

_SCORE_TOLERANCE = 1e-6  # float32 sums in a different order
_CODE_TOLERANCE = 0.01  # between the cosine of a vector and that of its 8-bit code
_MORE_THAN_K = 90  # further neighbours that are kept, so that copies of a photo are known as equally near


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of each query, best first; row -1 and score -inf where there are fewer."""

    scores: Float32[ndarray, "q k"]
    rows: Int64[ndarray, "q k"]

    @classmethod
    def none(cls, num_queries: int, k: int) -> Neighbours:
        """No neighbours yet."""
        return cls(np.full((num_queries, k), -np.inf, np.float32), np.full((num_queries, k), -1, np.int64))


def exact_neighbours(
    queries: Float32[ndarray, "q d"],
    blocks: Iterable[tuple[Int64[ndarray, " n"], Float32[ndarray, "n d"]]],
    k: int,
    device: Device = CPU,
) -> Neighbours:
    """The `k` nearest rows, by comparison with every vector; `blocks` are rows and their vectors."""
    found = Neighbours.none(len(queries), k)
    for rows, vectors in blocks:
        num = min(k, len(rows))
        scores, places = device.nearest(queries, vectors, num)
        found = merged([found, Neighbours(scores, rows[places])], k)
    return found


def largest(scores: Float32[ndarray, " n"], k: int) -> Int64[ndarray, " k"]:
    """The places of the `k` largest scores, best first; equal ones in the order of their places."""
    if not k:
        return np.empty(0, np.int64)
    limit = np.partition(scores, len(scores) - k)[len(scores) - k]
    places = np.flatnonzero(scores >= limit)
    return np.asarray(places[np.argsort(-scores[places], kind="stable")[:k]])


def merged(parts: Sequence[Neighbours], k: int) -> Neighbours:
    """The `k` best of results over different rows; equal scores stay in the order of the parts."""
    if len(parts) == 1 and parts[0].rows.shape[1] <= k:
        return parts[0]
    scores = np.concatenate([part.scores for part in parts], axis=1)
    rows = np.concatenate([part.rows for part in parts], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))


def merged_all(parts: Iterable[Neighbours], num_queries: int, k: int) -> Neighbours:
    """As `merged`, one part at a time."""
    found = Neighbours.none(num_queries, k)
    for part in parts:
        found = merged([found, part], k)
    return found


def depth(k: int) -> int:
    """How many exact neighbours `recall_per_query` needs for `k`."""
    return k + _MORE_THAN_K


def recall_per_query(exact: Neighbours, found: Neighbours, k: int) -> Float32[ndarray, " q"]:
    """The share of each query's `k` results that are as near as its exact k-th neighbour.

    `exact` has `depth(k)` neighbours. Results are compared by the exact score of their row, so copies of a
    photo are all correct; the score of an index may be that of a code. Of more copies than `exact` lists, a
    result with about their score is correct.
    """
    num_exact = int((exact.rows[:, :k] >= 0).sum(axis=1).min(initial=k))
    k = min(k, num_exact)
    if not k:
        return np.ones(len(exact.rows), np.float32)
    limits = exact.scores[:, k - 1, None] - _SCORE_TOLERANCE
    near = np.where(exact.scores >= limits, exact.rows, -1)
    results = found.rows[:, :k]
    hits = ((results[:, :, None] == near[:, None, :]) & (results[:, :, None] >= 0)).any(axis=2)
    has_more = exact.scores[:, -1, None] >= limits
    hits |= has_more & (found.scores[:, :k] >= limits - _CODE_TOLERANCE)
    return np.asarray(hits.sum(axis=1) / k, np.float32)
