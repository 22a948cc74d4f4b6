"""Stored vectors that are decoded together are those that FAISS reconstructs one by one."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from raysys.config.schema import IndexConfig
from raysys.index.kinds import recipe_of, trained_index
from raysys.index.lists import list_rows
from raysys.index.shards import read_shard, write_shard
from raysys.index.stored import StoredVectors
from tests.unit.index.embedding_sets import clustered_vectors

NUM, DIMENSIONS = 20_000, 16  # two blocks


@pytest.mark.parametrize("kind", ["exact", "ivf_sq8", "ivf_pq", "ivf_rabitq", "hnsw", "hnsw_sq8"])
@pytest.mark.parametrize("num_lists", [16, 300])  # the number of a list is one byte of a code, or two
def test_vectors_are_those_that_faiss_reconstructs(kind: str, num_lists: int, tmp_path: Path) -> None:
    num = NUM if kind in ("exact", "ivf_sq8") else 12_000
    vectors = clustered_vectors(num, DIMENSIONS)
    index = trained_index(recipe_of(IndexConfig(num_lists=num_lists), kind, num, DIMENSIONS), vectors)
    index.add(vectors)
    write_shard(index, tmp_path / "shard")
    opened = read_shard(tmp_path / "shard")
    rows = np.random.default_rng(0).permutation(num)[: num - 3]
    expected = opened.reconstruct_batch(rows)
    stored = StoredVectors.of(opened)
    assert type(stored) is not StoredVectors  # which calls FAISS
    assert np.array_equal(stored.vectors(rows), expected)
    blocks = [*stored.blocks(rows)]
    assert np.array_equal(np.concatenate([block for block, _ in blocks]), rows)
    assert np.array_equal(np.concatenate([some for _, some in blocks]), expected)
    assert stored.vectors(rows[:0]).shape == (0, DIMENSIONS)
    ivf = faiss.try_extract_index_ivf(opened)
    if ivf is not None:
        assert np.array_equal(list_rows(ivf, rows).lists, ivf.quantizer.search(vectors[rows], 1)[1][:, 0])
        query = clustered_vectors(1, DIMENSIONS, seed=1)[0]
        found = list_rows(ivf, rows)
        centroids = ivf.quantizer.reconstruct_n(0, ivf.nlist)
        scores = stored.scores(query, found, (centroids @ query)[found.lists])
        np.testing.assert_allclose(scores, expected @ query, atol=2e-6)
        assert stored.scores(query, list_rows(ivf, rows[:0]), np.empty(0, np.float32)).shape == (0,)


def test_vectors_of_an_index_without_a_known_layout() -> None:
    vectors = clustered_vectors(50, DIMENSIONS)
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(DIMENSIONS))
    index.add_with_ids(vectors, np.arange(50))
    assert np.array_equal(StoredVectors.of(index).vectors(np.array([3, 1])), vectors[[3, 1]])
