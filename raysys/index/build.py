"""FAISS indexes from vectors: exact (a flat list) or HNSW (a graph, Malkov & Yashunin 2016)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float32
from numpy import ndarray

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, IndexBundleManifest
from raysys.artifacts.embedding_set import read_embeddings, vectors_of
from raysys.config.schema import IndexConfig
from raysys.errors import DamagedData
from raysys.index.exact import exact_search, recall
from raysys.index.search import INDEX_FILE, ITEMS_FILE, items_table


def build_index(vectors: Float32[ndarray, "n d"], section: IndexConfig) -> Any:
    """A FAISS index over unit vectors, by inner product; row i is `vectors[i]`."""
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
    """Recall@1 and @k of the index against exact search, on stored vectors drawn at random."""
    chosen = np.random.default_rng(seed).permutation(len(vectors))[: section.recall_queries]
    k = min(section.recall_k, len(vectors))
    truth, _ = exact_search(vectors[chosen], vectors, k)
    found, _ = index.search(vectors[chosen], k)
    return {
        "recall@1": recall(found[:, :1], truth[:, :1]),
        f"recall@{k}": recall(found, truth),
        "queries": len(chosen),
    }


def publish_index(spec: ArtifactSpec, embeddings_uri: str, section: IndexConfig) -> IndexBundleManifest:
    """Build and publish the index.

    Raises: DamagedData if its recall is below `index.min_recall`.
    """
    started = time.monotonic()
    embeddings = artifacts.open_artifact(embeddings_uri, EmbeddingSetManifest)
    table = read_embeddings(embeddings_uri)
    vectors = vectors_of(table)
    built = build_index(vectors, section)
    measured = measure_recall(built, vectors, section)
    _require_recall(spec.uri, measured, section)
    artifacts.begin(spec)
    with storage.writable_file(storage.join(spec.uri, INDEX_FILE)) as path:
        faiss.write_index(built, str(path))
    with storage.writable_file(storage.join(spec.uri, ITEMS_FILE)) as path:
        pq.write_table(items_table(table), path)
    files = artifacts.describe_files(spec.uri)
    manifest = IndexBundleManifest(
        **artifacts.common_fields(spec, files, len(vectors), time.monotonic() - started),
        space_id=embeddings.space_id,
        dimensions=embeddings.dimensions,
        index_kind=section.kind,
        recall=measured,
        last_change=0,
    )
    return artifacts.publish(spec.uri, manifest)


def _require_recall(uri: str, measured: Mapping[str, float], section: IndexConfig) -> None:
    name, worst = min(
        ((n, value) for n, value in measured.items() if n.startswith("recall@")), key=lambda pair: pair[1]
    )
    if worst < section.min_recall:
        raise DamagedData(
            f"{uri}: {name} of the {section.kind} index is {worst:.3f}, "
            f"below index.min_recall {section.min_recall}; raise index.ef_search or index.hnsw_m"
        )
