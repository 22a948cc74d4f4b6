"""Exact nearest neighbours in numpy: the slow twin that every index is measured against."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

_BLOCK_ROWS = 1024
_SAME_SCORE = 1e-6  # float32 sums in another order


def exact_search(
    queries: Float32[ndarray, "q d"], vectors: Float32[ndarray, "n d"], k: int
) -> tuple[Float32[ndarray, "q k"], Int64[ndarray, "q k"]]:
    """Cosine of unit vectors and rows of the `k` nearest, best first; equal scores in order of row."""
    k = min(k, len(vectors))
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), _BLOCK_ROWS):
        block = queries[start : start + _BLOCK_ROWS] @ vectors.T
        order = np.argsort(-block, axis=1, kind="stable")[:, :k]
        rows[start : start + len(block)] = order
        scores[start : start + len(block)] = np.take_along_axis(block, order, axis=1)
    return scores, rows


def recall(found_scores: Float32[ndarray, "q k"], true_scores: Float32[ndarray, "q k"]) -> float:
    """Share of what was found that is as near as the true k-th neighbour, over all queries.

    By score and not by row: copies of a photo are equally near, and any of them is right.
    """
    hits = found_scores >= true_scores[:, -1:] - _SAME_SCORE
    return float(hits.mean()) if hits.size else 0.0
