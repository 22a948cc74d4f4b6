"""FAISS indexes against exact search, measured recall, and publishing."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, IndexBundleManifest
from raysys.columns import embedding_schema
from raysys.config.schema import IndexConfig
from raysys.errors import DamagedData, MissingError
from raysys.index.build import build_index, measure_recall, publish_index
from raysys.index.exact import exact_search
from raysys.index.search import Searcher

EXACT = IndexConfig(kind="exact")


def unit_vectors(num: int, dimensions: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(num, dimensions)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def publish_embeddings(folder: Path, vectors: np.ndarray, ids: list[str] | None = None) -> str:
    """Publish an EmbeddingSet of one file without attributes; returns its URI."""
    num, dimensions = vectors.shape
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimensions)
    texts = [
        ids or [f"m{row}" for row in range(num)],
        ["title"] * num,
        ["{}"] * num,
        ["train"] * num,
        ["x.tar"] * num,
    ]
    arrays = [*map(pa.array, texts), pa.array([0] * num), pa.array([1] * num), pa.array(["h"] * num), column]
    spec = ArtifactSpec(str(folder), EmbeddingSetManifest, {}, {})
    artifacts.begin(spec)
    pq.write_table(pa.table(arrays, schema=embedding_schema(dimensions)), folder / "train-00000.parquet")
    files = artifacts.describe_files(spec.uri)
    fields = artifacts.common_fields(spec, files, num, 0.0)
    artifacts.publish(spec.uri, EmbeddingSetManifest(**fields, space_id="s" * 64, dimensions=dimensions))
    return spec.uri


def test_exact_index_returns_what_exact_search_returns() -> None:
    vectors, queries = unit_vectors(300), unit_vectors(20, seed=1)
    scores, rows = build_index(vectors, EXACT).search(queries, 10)
    expected_scores, expected_rows = exact_search(queries, vectors, 10)
    assert (rows == expected_rows).all()
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_index_rows_follow_the_order_of_the_vectors() -> None:
    vectors = unit_vectors(20)
    for kind in ("exact", "hnsw"):
        index = build_index(vectors, IndexConfig(kind=kind))
        assert index.ntotal == 20
        assert (index.reconstruct(7) == vectors[7]).all()


def test_hnsw_index_finds_nearly_all_neighbours() -> None:
    vectors, queries = unit_vectors(1000), unit_vectors(100, seed=1)
    _, rows = build_index(vectors, IndexConfig(kind="hnsw")).search(queries, 10)
    _, expected = exact_search(queries, vectors, 10)
    hits = sum(len(set(result) & set(exact)) for result, exact in zip(rows, expected, strict=True))
    assert hits / 1000 > 0.98


def test_hnsw_settings_are_passed_to_faiss() -> None:
    section = IndexConfig(kind="hnsw", hnsw_m=8, ef_construction=50, ef_search=30)
    index = build_index(unit_vectors(20), section)
    assert (index.hnsw.efConstruction, index.hnsw.efSearch) == (50, 30)
    assert index.hnsw.nb_neighbors(1) == 8  # twice that in the lowest layer


def test_exact_index_has_recall_one() -> None:
    vectors = unit_vectors(50)
    assert measure_recall(build_index(vectors, EXACT), vectors, EXACT) == {
        "recall@1": 1.0,
        "recall@10": 1.0,
        "queries": 50,
    }


@pytest.mark.parametrize("copies", [2, 12])
def test_exact_index_has_recall_one_with_duplicate_photos(copies: int) -> None:
    # Copies of a photo are equally near: each of them is a correct result.
    vectors = np.concatenate([unit_vectors(50)] * copies)
    measured = measure_recall(build_index(vectors, EXACT), vectors, EXACT)
    assert (measured["recall@1"], measured["recall@10"]) == (1.0, 1.0)


def test_recall_counts_missed_neighbours() -> None:
    vectors = unit_vectors(40)
    section = IndexConfig(recall_k=4)
    incomplete = build_index(vectors[:20], EXACT)
    # The index lacks the last 20 of the 40 vectors, so half of the queries do not find themselves.
    measured = measure_recall(incomplete, vectors, section)
    assert measured["recall@1"] == 0.5
    assert 0 < measured["recall@4"] < 1


def test_recall_uses_the_configured_number_of_queries() -> None:
    vectors = unit_vectors(50)
    measured = measure_recall(
        build_index(vectors, EXACT), vectors, IndexConfig(recall_queries=7, recall_k=60)
    )
    assert measured == {"recall@1": 1.0, "recall@50": 1.0, "queries": 7}


def test_index_is_published_with_its_recall(tmp_path: Path) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(30))
    spec = ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {})
    manifest = publish_index(spec, embeddings_uri, EXACT)
    assert artifacts.open_artifact(spec.uri, IndexBundleManifest) == manifest
    assert (manifest.num_items, manifest.dimensions, manifest.index_kind) == (30, 16, "exact")
    assert manifest.space_id == "s" * 64
    assert manifest.recall == {"recall@1": 1.0, "recall@10": 1.0, "queries": 30}


def test_index_below_min_recall_is_not_published(tmp_path: Path) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(600))
    poor = IndexConfig(kind="hnsw", hnsw_m=2, ef_construction=1, ef_search=1, min_recall=0.99)
    spec = ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {})
    with pytest.raises(DamagedData) as caught:
        publish_index(spec, embeddings_uri, poor)
    assert str(caught.value).startswith(f"{spec.uri}: recall@")
    assert str(caught.value).endswith(", below index.min_recall 0.99; raise index.ef_search or index.hnsw_m")
    with pytest.raises(MissingError):
        artifacts.open_artifact(spec.uri, IndexBundleManifest)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 7.0])
def test_index_refuses_vectors_that_are_not_usable(tmp_path: Path, value: float) -> None:
    vectors = unit_vectors(30)
    vectors[12] = value
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", vectors)
    spec = ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {})
    with pytest.raises(
        DamagedData, match=r"train-00000\.parquet: 1 of 30 .* 'm12' has .*`raysys embed` again$"
    ):
        publish_index(spec, embeddings_uri, EXACT)
    assert not Path(spec.uri).exists()


def test_index_refuses_repeated_item_ids(tmp_path: Path) -> None:
    ids = ["a", "b", "c", "d", "e", "a", "b", "c", "d", "a"]
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(10), ids)
    with pytest.raises(DamagedData) as caught:
        publish_index(
            ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {}), embeddings_uri, EXACT
        )
    assert str(caught.value) == (
        f"{embeddings_uri}: 4 item ids occur more than once (first 'a' in x.tar; 'b' in x.tar; 'c' in x.tar); "
        f"make the ids unique, pack again, and delete {embeddings_uri}, then run `raysys embed` again"
    )


def test_index_without_items_is_refused(tmp_path: Path) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(0))
    with pytest.raises(DamagedData, match="an EmbeddingSet without items cannot be indexed; delete"):
        publish_index(
            ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {}), embeddings_uri, EXACT
        )


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
@pytest.mark.parametrize("num", [1, 2])
def test_index_of_fewer_items_than_k_returns_all_of_them(tmp_path: Path, kind: str, num: int) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(num))
    spec = ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {})
    manifest = publish_index(spec, embeddings_uri, IndexConfig.model_validate({"kind": kind}))
    assert (manifest.num_items, manifest.recall["recall@1"]) == (num, 1.0)
    searcher = Searcher(spec.uri)
    assert len(searcher.search(searcher.vector(0)[None], 10)[0]) == num
    assert len(searcher.search(searcher.vector(0)[None], 10, exclude_rows=[0])[0]) == num - 1
