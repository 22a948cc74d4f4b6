"""Build a FAISS index, measure its recall and publish it as an IndexBundle."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, IndexBundleManifest
from raysys.artifacts.embedding_set import read_embeddings, require_unique_ids, vectors_of
from raysys.config.schema import IndexConfig
from raysys.errors import DamagedData
from raysys.index.crossover import measure_crossover
from raysys.index.exact import exact_search, recall
from raysys.index.items import item_columns, write_items
from raysys.index.search import index_file, items_file


def publish_index(spec: ArtifactSpec, embeddings_uri: str, section: IndexConfig) -> IndexBundleManifest:
    """Build the index of an EmbeddingSet and publish it with its measured recall.

    Raises: DamagedData if the EmbeddingSet is damaged or empty, if two of its rows have one item id, or if
    the recall is below `index.min_recall`.
    """
    started = time.monotonic()
    embeddings = artifacts.open_artifact(embeddings_uri, EmbeddingSetManifest)
    table = read_embeddings(embeddings_uri)
    if not len(table):
        raise DamagedData(
            f"{embeddings_uri}: an EmbeddingSet without items cannot be indexed; "
            f"{artifacts.make_again(embeddings_uri, embeddings)}"
        )
    make_again = artifacts.make_again(embeddings_uri, embeddings)
    require_unique_ids(embeddings_uri, table, f"make the ids unique, pack again, and {make_again}")
    vectors, items = vectors_of(table), item_columns(embeddings_uri, table)
    index = build_index(vectors, section)
    measured = measure_recall(index, vectors, section)
    _require_recall(spec.uri, measured, section)
    artifacts.begin(spec)
    with storage.writable_file(storage.join(spec.uri, index_file(0))) as path:
        faiss.write_index(index, str(path))
    write_items(storage.join(spec.uri, items_file(0)), items)
    files = artifacts.describe_files(spec.uri)
    manifest = IndexBundleManifest(
        **artifacts.common_fields(spec, files, len(vectors), time.monotonic() - started),
        space_id=embeddings.space_id,
        dimensions=embeddings.dimensions,
        index_kind=section.kind,
        recall=measured,
        last_change=0,
        max_exact_rows=measure_crossover(index, vectors[:20]),
    )
    return artifacts.publish(spec.uri, manifest)


def build_index(vectors: Float32[ndarray, "n d"], section: IndexConfig) -> Any:
    """A FAISS inner-product index of unit vectors; row i is `vectors[i]`.

    `exact` is a flat list; `hnsw` is a graph (Malkov & Yashunin 2016).
    """
    dimensions = vectors.shape[1]
    if section.kind == "exact":
        index: Any = faiss.IndexFlatIP(dimensions)
    else:
        index = faiss.IndexHNSWFlat(dimensions, section.hnsw_m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = section.ef_construction
        index.hnsw.efSearch = section.ef_search
    index.add(vectors)
    return index


def measure_recall(
    index: Any, vectors: Float32[ndarray, "n d"], section: IndexConfig, seed: int = 0
) -> dict[str, float]:
    """Recall@1 and recall@k of the index against exact search; queries are a random sample of `vectors`."""
    sample = np.random.default_rng(seed).permutation(len(vectors))[: section.recall_queries]
    k = min(section.recall_k, len(vectors))
    exact_scores, _ = exact_search(vectors[sample], vectors, k)
    scores, _ = index.search(vectors[sample], k)
    return {
        "recall@1": recall(scores[:, :1], exact_scores[:, :1]),
        f"recall@{k}": recall(scores, exact_scores),
        "queries": len(sample),
    }


def _require_recall(uri: str, measured: Mapping[str, float], section: IndexConfig) -> None:
    recalls = {name: value for name, value in measured.items() if name.startswith("recall@")}
    name, lowest = min(recalls.items(), key=lambda entry: entry[1])
    if lowest < section.min_recall:
        raise DamagedData(
            f"{uri}: {name} of the {section.kind} index is {lowest:.3f}, "
            f"below index.min_recall {section.min_recall}; raise index.ef_search or index.hnsw_m"
        )
