"""The item with which the page opens: one whose neighbours show at a glance what the service does."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from raysys.index.search import Searcher

_NUM_CANDIDATES = 256  # one search of all of them is a few hundred milliseconds in a large HNSW index
_NUM_NEIGHBOURS = 12  # as many as the page shows
_COPY_COSINE = 0.995  # listings of the same thing: copies say nothing about the search


def opening_row(searcher: Searcher) -> int | None:
    """The clearest of at most 256 items, the same one for the same index; None if no item has a neighbour."""
    rows = searcher.random_rows(_NUM_CANDIDATES, seed=0)
    if len(searcher) < 2:
        return None
    vectors = np.stack([searcher.vector(int(row)) for row in rows])
    found = searcher.search(vectors, 2 * _NUM_NEIGHBOURS, exclude_rows=[int(row) for row in rows])
    scores = np.full((len(rows), 2 * _NUM_NEIGHBOURS), -1.0)
    for number, neighbours in enumerate(found):
        scores[number, : len(neighbours)] = [neighbour.score for neighbour in neighbours]
    return int(rows[clearest(scores, vectors)])


def clearest(
    neighbour_scores: Float[ndarray, "items neighbours"], vectors: Float32[ndarray, "items d"]
) -> int:
    """The item whose neighbours stand out most from the other items.

    That is the largest difference between the mean cosine of its 12 nearest neighbours, without copies of
    the item, and its mean cosine with all of these items. Scores are best first, -1 where there are fewer.
    """
    is_copy = neighbour_scores >= _COPY_COSINE
    without_copies = -np.sort(-np.where(is_copy, -1.0, neighbour_scores), axis=1)[:, :_NUM_NEIGHBOURS]
    background = (vectors @ vectors.mean(axis=0)).astype(np.float64)
    return int((without_copies.mean(axis=1) - background).argmax())
