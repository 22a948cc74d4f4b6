"""Exact nearest-neighbour search in numpy: the reference implementation for every index."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

_BLOCK_ROWS = 1024
_SCORE_TOLERANCE = 1e-6  # float32 sums in a different order


def exact_search(
    queries: Float32[ndarray, "q d"], vectors: Float32[ndarray, "n d"], k: int
) -> tuple[Float32[ndarray, "q k"], Int64[ndarray, "q k"]]:
    """Cosines and rows of the `k` nearest vectors of each query, best first; ties in order of row.

    All vectors have length 1. With fewer than `k` vectors, all of them are returned.
    """
    k = min(k, len(vectors))
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), _BLOCK_ROWS):
        block = queries[start : start + _BLOCK_ROWS] @ vectors.T
        order = np.argsort(-block, axis=1, kind="stable")[:, :k]
        rows[start : start + len(block)] = order
        scores[start : start + len(block)] = np.take_along_axis(block, order, axis=1)
    return scores, rows


def hits(
    result_scores: Float32[ndarray, "q k"], exact_scores: Float32[ndarray, "q k"]
) -> Bool[ndarray, "q k"]:
    """Which results are at least as near as the exact k-th neighbour of their query.

    Results are compared by score and not by row: copies of a photo are equally near, and each is correct.
    """
    return np.asarray(result_scores >= exact_scores[:, -1:] - _SCORE_TOLERANCE)
