"""FAISS indexes from vectors: exact (a flat list) or HNSW (a graph, Malkov & Yashunin 2016)."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys.config.schema import IndexConfig
from raysys.index.exact import exact_search, recall


def build_index(vectors: Float32[ndarray, "n d"], section: IndexConfig) -> Any:
    """A FAISS index over unit vectors, by inner product; row i is `vectors[i]`."""
    dimensions = vectors.shape[1]
    if section.kind == "exact":
        index: Any = faiss.IndexFlatIP(dimensions)
    else:
        index = faiss.IndexHNSWFlat(dimensions, section.hnsw_links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = section.hnsw_build_effort
        index.hnsw.efSearch = section.hnsw_search_effort
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
