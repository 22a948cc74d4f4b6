"""Queries that no row of an index equals, and the interval of the recall that they measure."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys.index.device import CPU, Device
from raysys.index.neighbours import exact_neighbours

_MIN_COSINE = 0.5  # with very few items, the nearest neighbour says nothing about a second photo
_NEIGHBOURS = 10
_Z = 1.96  # of a 95 % interval


def perturbed(
    vectors: Float32[ndarray, "q d"],
    sample: Float32[ndarray, "n d"],
    rng: np.random.Generator,
    device: Device = CPU,
) -> Float32[ndarray, "q d"]:
    """Vectors as far from `vectors` as these are from their nearest neighbour in `sample` (the median).

    The direction of each is the difference of two of its neighbours, so queries vary as similar items do. A
    stored vector itself would be too easy a query: the search of a graph ends at its own node, and the first
    neighbour is always found. `sample` may contain `vectors`.
    """
    near = exact_neighbours(vectors, [(np.arange(len(sample)), sample)], _NEIGHBOURS, device)
    num_near = min(_NEIGHBOURS, len(sample))
    if num_near < 3:
        return vectors
    cosine = _median_neighbour_cosine(near.scores)
    # The first one may be the vector itself.
    columns = rng.permuted(np.tile(np.arange(1, num_near), (len(vectors), 1)), axis=1)[:, :2]
    first, second = (sample[near.rows[np.arange(len(vectors)), column]] for column in columns.T)
    direction = first - second
    direction -= np.einsum("nd,nd->n", direction, vectors)[:, None] * vectors
    lengths = np.linalg.norm(direction, axis=1, keepdims=True)
    is_varied = lengths > 1e-4  # copies do not vary
    direction /= np.maximum(lengths, 1e-4)
    queries = np.where(is_varied, cosine * vectors + math.sqrt(1 - cosine**2) * direction, vectors)
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


def _median_neighbour_cosine(scores: Float32[ndarray, "q k"]) -> float:
    is_itself = scores[:, 0] >= 1 - 1e-6
    cosines = np.where(is_itself, scores[:, 1], scores[:, 0])
    return float(np.clip(np.median(cosines), _MIN_COSINE, 1.0))
