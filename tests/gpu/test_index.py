"""FAISS on a GPU against FAISS on the CPU: the same data, the same neighbours, files that the CPU reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from raysys.artifacts import ArtifactSpec, IndexBundleManifest
from raysys.config.schema import IndexConfig
from raysys.index.build import publish_index
from raysys.index.device import CPU, Device, device_of, filled
from raysys.index.kinds import recipe_of, trained_index
from raysys.index.neighbours import Neighbours, depth, exact_neighbours, recall_per_query
from raysys.index.search import Neighbour, Searcher
from raysys.index.shards import Shard
from tests.unit.index.embedding_sets import clustered_vectors, publish_embeddings

NUM, DIMENSIONS = 20_000, 64
SECTION = IndexConfig(num_lists=128, nprobe=8, recall_queries=200)


@pytest.fixture(scope="module")
def gpu() -> Device:
    if not hasattr(faiss, "StandardGpuResources"):
        pytest.skip("needs the FAISS of raysys[gpu]")
    return device_of("gpu")


@pytest.mark.parametrize("num_queries", [5, 100])  # the CPU compares few queries
@pytest.mark.parametrize("k", [1, 100, 2500])
def test_exact_neighbours_are_those_of_the_cpu(gpu: Device, num_queries: int, k: int) -> None:
    vectors, queries = clustered_vectors(3000, DIMENSIONS), clustered_vectors(num_queries, DIMENSIONS, seed=1)
    blocks = [(np.arange(1000) + start, vectors[start : start + 1000]) for start in (0, 1000, 2000)]
    expected, found = exact_neighbours(queries, blocks, k), exact_neighbours(queries, blocks, k, gpu)
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-6)
    np.testing.assert_allclose(
        np.einsum("qkd,qd->qk", vectors[found.rows], queries), expected.scores, atol=2e-6
    )


@pytest.mark.parametrize("kind", ["ivf_sq8", "ivf_pq", "ivf_rabitq", "hnsw"])
def test_recall_is_that_of_a_build_on_the_cpu(gpu: Device, kind: str) -> None:
    vectors, queries = clustered_vectors(NUM, DIMENSIONS), clustered_vectors(500, DIMENSIONS, seed=1)
    exact = exact_neighbours(queries, [(np.arange(NUM), vectors)], depth(10))
    recipe = recipe_of(SECTION, kind, NUM, DIMENSIONS)
    on_cpu, on_gpu = (
        _recall(
            filled(trained_index(recipe, vectors, device=device), [vectors], device),
            recipe.search,
            queries,
            exact,
        )
        for device in (CPU, gpu)
    )
    assert on_gpu == pytest.approx(on_cpu, abs=0.01)


def test_same_centroids_give_almost_the_same_lists(gpu: Device) -> None:
    """The device finds lists by its own rounding, and encodes nothing."""
    vectors = clustered_vectors(NUM, DIMENSIONS)
    trained = faiss.serialize_index(trained_index(recipe_of(SECTION, "ivf_sq8", NUM, DIMENSIONS), vectors))
    on_cpu, on_gpu = (filled(faiss.deserialize_index(trained), [vectors], device) for device in (CPU, gpu))
    for index in (on_cpu, on_gpu):
        index.make_direct_map()
    is_equal = on_cpu.reconstruct_n(0, NUM) == on_gpu.reconstruct_n(0, NUM)
    assert is_equal.all(axis=1).mean() > 0.999


@pytest.mark.parametrize("kind", ["exact", "ivf_sq8"])
def test_published_index_is_searched_on_both_devices(gpu: Device, tmp_path: Path, kind: str) -> None:
    vectors, queries = clustered_vectors(3000, DIMENSIONS), clustered_vectors(50, DIMENSIONS, seed=1)
    embeddings = publish_embeddings(tmp_path / "embeddings", vectors, num_files=2)
    spec = ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {})
    section = IndexConfig(kind=kind, device="gpu", shards=2, recall_queries=100)
    manifest = publish_index(spec, embeddings, section)
    assert manifest.recall["recall@10"] > 0.95
    on_cpu, on_gpu = Searcher(spec.uri), Searcher(spec.uri, gpu, is_on_device=True)
    for is_exact in (False, True):
        expected = on_cpu.search(queries, 10, is_exact=is_exact)
        found = on_gpu.search(queries, 10, is_exact=is_exact)
        np.testing.assert_allclose(_scores(found), _scores(expected), atol=1e-5)
    one = on_gpu.search(queries[:1], 10)
    np.testing.assert_allclose(_scores(one), _scores(on_cpu.search(queries[:1], 10)), atol=1e-5)


def _recall(index: Any, settings: Mapping[str, int], queries: np.ndarray, exact: Neighbours) -> float:
    return float(recall_per_query(exact, Shard(index, settings).search(queries, 10), 10).mean())


def _scores(found: list[list[Neighbour]]) -> np.ndarray:
    return np.array([[neighbour.score for neighbour in neighbours] for neighbours in found])
