"""The number of rows that are searched exactly: never few, and more of them where the index finds too little."""

from __future__ import annotations

from typing import Any

import faiss

from raysys.index.crossover import measure_crossover
from raysys.index.shards import Shard
from tests.unit.index.embedding_sets import unit_vectors


def test_index_that_finds_too_little_leaves_most_rows_to_exact_search() -> None:
    vectors = unit_vectors(24_000)
    index: Any = faiss.index_factory(16, "IVF64,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    index.make_direct_map()
    # One list has few of the neighbours of a random vector; 12,000 rows are half.
    assert 11_000 < measure_crossover(Shard(index, {"nprobe": 1}), unit_vectors(5, seed=1)) < 13_000


def test_small_index_is_always_searched_exactly() -> None:
    index: Any = faiss.IndexFlatIP(16)
    index.add(unit_vectors(100))
    assert measure_crossover(Shard(index, {}), unit_vectors(5, seed=1)) == 10_000
