"""Queries that no row of an index equals, and the interval of the recall that they measure."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys.index.neighbours import exact_neighbours

_MIN_COSINE = 0.5  # with very few items, the nearest neighbour says nothing about a second photo
_Z = 1.96  # of a 95 % interval


def perturbed(
    vectors: Float32[ndarray, "q d"], sample: Float32[ndarray, "n d"], rng: np.random.Generator
) -> Float32[ndarray, "q d"]:
    """Vectors as far from `vectors` as these are from their nearest neighbour in `sample` (the median).

    The direction is the difference of two random vectors of the sample, so queries vary as the data do. A
    stored vector itself would be too easy a query: the search of a graph ends at its own node, and the first
    neighbour is always found. `sample` may contain `vectors`.
    """
    cosine = _median_neighbour_cosine(vectors, sample)
    first, second = (sample[rng.integers(len(sample), size=len(vectors))] for _ in range(2))
    direction = first - second
    direction -= np.einsum("nd,nd->n", direction, vectors)[:, None] * vectors
    lengths = np.linalg.norm(direction, axis=1, keepdims=True)
    has_direction = lengths > 1e-6
    direction = np.where(has_direction, direction / np.maximum(lengths, 1e-6), 0.0)
    queries = np.where(has_direction, cosine * vectors + math.sqrt(1 - cosine**2) * direction, vectors)
    return np.ascontiguousarray(queries / np.linalg.norm(queries, axis=1, keepdims=True), np.float32)


def wilson_interval(share: float, num: int) -> tuple[float, float]:
    """The 95 % interval of a share of `num` trials (Wilson 1927).

    With queries as the trials, it is at least as wide as that of a mean of per-query recalls, and does not
    shrink to a point at recall 1.
    """
    center = share + _Z**2 / (2 * num)
    spread = _Z * math.sqrt(share * (1 - share) / num + _Z**2 / (4 * num**2))
    scale = 1 + _Z**2 / num
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def _median_neighbour_cosine(vectors: ndarray, sample: ndarray) -> float:
    if len(sample) < 2:
        return 1.0
    scores = exact_neighbours(vectors, [(np.arange(len(sample)), sample)], 2).scores
    # The nearest one is the vector itself where the sample contains it.
    is_itself = scores[:, 0] >= 1 - 1e-6
    cosines = np.where(is_itself, scores[:, 1], scores[:, 0])
    return float(np.clip(np.median(cosines), _MIN_COSINE, 1.0))
