"""The number of rows that are searched exactly: never few, and more of them where the index finds too little."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from raysys.index.crossover import measure_crossover


def unit_vectors(num: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(num, 16)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_index_that_finds_too_little_leaves_most_rows_to_exact_search() -> None:
    vectors = unit_vectors(24_000)
    index: Any = faiss.index_factory(16, "IVF64,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    index.make_direct_map()  # nprobe is 1: a random vector has most of its neighbours in other lists
    assert 11_000 < measure_crossover(index, unit_vectors(5, seed=1)) < 13_000  # half of the rows


def test_small_index_is_always_searched_exactly() -> None:
    index: Any = faiss.IndexFlatIP(16)
    index.add(unit_vectors(100))
    assert measure_crossover(index, unit_vectors(5, seed=1)) == 10_000
