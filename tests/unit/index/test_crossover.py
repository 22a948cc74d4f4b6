"""The number of rows that are searched exactly: never few, and more of them where the index finds too little."""

from __future__ import annotations

from typing import Any

import faiss
import pytest

from raysys.index import crossover
from raysys.index.crossover import measure_crossover
from raysys.index.shards import Shard
from tests.unit.index.embedding_sets import unit_vectors


def test_index_that_finds_too_little_leaves_most_rows_to_exact_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crossover, "_ALWAYS_EXACT_MS", 0.0)  # however fast this machine is
    vectors = unit_vectors(24_000)
    index: Any = faiss.index_factory(16, "IVF64,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    index.make_direct_map()
    # No index finds more than everything; 12,000 rows are half.
    rows = measure_crossover(Shard(index, {"nprobe": 1}), unit_vectors(5, seed=1), min_recall=1.01)
    assert 11_000 < rows < 13_000


def test_small_index_is_always_searched_exactly() -> None:
    index: Any = faiss.IndexFlatIP(16)
    index.add(unit_vectors(100))
    assert measure_crossover(Shard(index, {}), unit_vectors(5, seed=1)) >= 1000


@pytest.mark.parametrize(("milliseconds", "rows"), [(0.0, 1000), (1e6, 100_000)])
def test_rows_that_take_less_than_the_time_are_always_searched_exactly(
    monkeypatch: pytest.MonkeyPatch, milliseconds: float, rows: int
) -> None:
    monkeypatch.setattr(crossover, "_ALWAYS_EXACT_MS", milliseconds)
    index: Any = faiss.index_factory(16, "IVF64,SQ8", faiss.METRIC_INNER_PRODUCT)
    vectors = unit_vectors(24_000)
    index.train(vectors)
    index.add(vectors)
    index.make_direct_map()
    # With all lists, the index is as good and faster from the first share that is compared.
    found = measure_crossover(Shard(index, {"nprobe": 64}), unit_vectors(5, seed=1))
    assert found >= rows
    assert milliseconds or found < 24_000
