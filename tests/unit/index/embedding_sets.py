"""EmbeddingSets of given vectors, and vectors whose spectrum falls like that of photos."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest
from raysys.columns import embedding_schema


def unit_vectors(num: int, dimensions: int = 16, seed: int = 0) -> np.ndarray:
    """Vectors of random directions."""
    return _unit(np.random.default_rng(seed).normal(size=(num, dimensions)))


def clustered_vectors(num: int, dimensions: int = 32, seed: int = 0) -> np.ndarray:
    """Vectors around 50 centres, with less variance in later dimensions."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, dimensions + 1) ** -0.5
    centres = np.random.default_rng(99).normal(size=(50, dimensions))
    return _unit((centres[rng.integers(50, size=num)] + rng.normal(size=(num, dimensions))) * scale)


def publish_embeddings(
    folder: Path,
    vectors: np.ndarray,
    ids: Sequence[str] | None = None,
    *,
    num_files: int = 1,
    split: str = "train",
    attributes: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> str:
    """Publish an EmbeddingSet, without attributes and groups by default; returns its URI."""
    num, dimensions = vectors.shape
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimensions)
    texts = [
        [*ids] if ids else [f"m{row}" for row in range(num)],
        ["title"] * num,
        [*attributes] if attributes else ["{}"] * num,
        [*groups] if groups else [""] * num,
        [split] * num,
        ["x.tar"] * num,
    ]
    arrays = [*map(pa.array, texts), pa.array([0] * num), pa.array([1] * num), pa.array(["h"] * num), column]
    table = pa.table(arrays, schema=embedding_schema(dimensions))
    spec = ArtifactSpec(str(folder), EmbeddingSetManifest, {}, {})
    artifacts.begin(spec)
    bounds = np.linspace(0, num, num_files + 1).astype(int)
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        pq.write_table(table.slice(start, end - start), folder / f"{split}-{number:05d}.parquet")
    files = artifacts.describe_files(spec.uri)
    fields = artifacts.common_fields(spec, files, num, 0.0)
    artifacts.publish(spec.uri, EmbeddingSetManifest(**fields, space_id="s" * 64, dimensions=dimensions))
    return spec.uri


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
