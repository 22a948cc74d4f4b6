"""The index against exact search: an exact index loses nothing, a graph with few links does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, IndexBundleManifest
from raysys.columns import embedding_schema
from raysys.config.schema import EvaluateConfig, IndexConfig
from raysys.evaluate.index_comparison import IndexComparison, compare_index
from raysys.evaluate.interaction_log import InteractionLog
from raysys.index.build import publish_index

NUM_ITEMS, DIMENSIONS = 400, 8


def vectors() -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(NUM_ITEMS, DIMENSIONS))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def colour_of(number: int) -> str | None:
    return None if number % 10 == 9 else ("red", "blue", "green")[number % 3]


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An EmbeddingSet of i0 .. i399 with random vectors and a colour, which every tenth item lacks."""
    folder = tmp_path_factory.mktemp("embeddings") / "set"
    rows = [
        {"item_id": f"i{number}", "title": "", "attributes": json.dumps({"colour": colour_of(number)}),
         "split": "test", "shard": "", "image_offset": 0, "image_bytes": 0, "content_hash": "",
         "embedding": vector}
        for number, vector in enumerate(vectors().tolist())
    ]  # fmt: skip
    spec = ArtifactSpec(str(folder), EmbeddingSetManifest, {}, {})
    artifacts.begin(spec)
    pq.write_table(pa.Table.from_pylist(rows, schema=embedding_schema(DIMENSIONS)), folder / "0.parquet")
    fields = artifacts.common_fields(spec, artifacts.describe_files(spec.uri), NUM_ITEMS, 0.0)
    artifacts.publish(spec.uri, EmbeddingSetManifest(**fields, space_id="s", dimensions=DIMENSIONS))
    return spec.uri


def compare(
    folder: Path, embeddings: str, index: IndexConfig, query_ids: list[str], match: str | None = "colour"
) -> IndexComparison | None:
    spec = ArtifactSpec(str(folder / "index"), IndexBundleManifest, index.model_dump(mode="json"), {})
    publish_index(spec, embeddings, index)
    shown = np.ones((len(query_ids), 1), dtype=bool)
    log = InteractionLog(query_ids, [["i0"]] * len(query_ids), shown, shown, simulated=False)
    protocol = {"match": [match], "k": 5} if match else None
    section = EvaluateConfig.model_validate({"attribute_precision": protocol, "bootstrap_samples": 100})
    return compare_index(spec.uri, log, section)


QUERY_IDS = [f"i{number}" for number in range(100)]


def test_exact_index_loses_nothing(tmp_path: Path, embeddings: str) -> None:
    found = compare(tmp_path, embeddings, IndexConfig(), [*QUERY_IDS, "sold", "i0"])
    assert found is not None
    assert (found.kind, found.settings, found.num_items) == ("exact", {}, NUM_ITEMS)
    assert (found.num_queries, found.num_unknown) == (100, 1)
    assert {name: (value.low, value.value) for name, value in found.recall.items()} == {
        "recall@1": (1.0, 1.0),
        "recall@10": (1.0, 1.0),
    }
    assert found.precision["exact"] == found.precision["index"]
    assert found.precision_lift is not None
    assert found.precision_lift.value == 0.0


def test_precision_of_exact_search_is_that_of_brute_force(tmp_path: Path, embeddings: str) -> None:
    found = compare(tmp_path, embeddings, IndexConfig(), QUERY_IDS)
    scores = vectors() @ vectors().T
    np.fill_diagonal(scores, -np.inf)  # a query is not its own neighbour
    nearest = np.argsort(-scores, axis=1)[:, :5]
    expected = [
        np.mean([colour_of(int(row)) == colour_of(query) for row in nearest[query]])
        for query in range(100)
        if colour_of(query) is not None  # without a colour, no neighbour could be correct
    ]
    assert found is not None
    assert found.precision_name == "p@5"
    assert found.precision["exact"].value == pytest.approx(np.mean(expected))


def test_recall_of_a_poor_graph_is_measured_at_its_own_settings(tmp_path: Path, embeddings: str) -> None:
    poor = IndexConfig(kind="hnsw", hnsw_m=2, ef_construction=4, ef_search=8, min_recall=0.0)
    found = compare(tmp_path, embeddings, poor, QUERY_IDS, match=None)
    assert found is not None
    assert found.settings == {"ef_search": 8}
    assert found.recall["recall@10"].low < found.recall["recall@10"].value < 0.9
    assert (found.precision_name, found.precision, found.precision_lift) == (None, {}, None)


def test_index_without_the_queries_is_not_compared(tmp_path: Path, embeddings: str) -> None:
    assert compare(tmp_path, embeddings, IndexConfig(), ["sold"]) is None
