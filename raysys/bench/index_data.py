"""The input of `raysys bench index`: drawn vectors as an EmbeddingSet, queries, exact neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest
from raysys.columns import embedding_schema
from raysys.index.neighbours import Neighbours, depth, exact_neighbours, merged

K = 10
ALL = 1.0
_ROWS_PER_FILE = 65_536
_SPECTRUM = 0.95  # variance of dimension i is i ** -0.95: a participation ratio of 21 in 128 dimensions
_CENTRES_PER_ROOT = 1.0  # centres of the mixture as a multiple of the root of the vectors
_BETWEEN = 0.5  # share of the variance between centres
_BUCKETS = 10_000


@dataclass(frozen=True)
class Work:
    """What is searched for, and where the files are."""

    folder: Path
    num_vectors: int
    exact: Mapping[float, Neighbours]
    """By the share of the rows that a filter keeps: `ALL`, and those with at least `K` rows."""

    @property
    def queries(self) -> Float32[ndarray, "q d"]:
        return np.asarray(np.load(self.folder / "queries.npy"))

    @property
    def embeddings_uri(self) -> str:
        return str(self.folder / "embeddings")


def draw_vectors(num: int, dimensions: int, num_centres: int, seed: int) -> Float32[ndarray, "n d"]:
    """Unit vectors of a mixture of Gaussians whose variances fall with the dimension."""
    scale = np.arange(1, dimensions + 1, dtype=np.float32) ** (-_SPECTRUM / 2)
    centres = np.random.default_rng(0).normal(size=(num_centres, dimensions)).astype(np.float32)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((num, dimensions), dtype=np.float32)
    vectors = _BETWEEN**0.5 * centres[rng.integers(num_centres, size=num)] + (1 - _BETWEEN) ** 0.5 * noise
    vectors *= scale
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def bucket_filter(share: float) -> dict[str, dict[str, int]]:
    """The filter that keeps this share of the rows: those whose attribute `bucket` is low."""
    return {"bucket": {"lte": round(share * _BUCKETS) - 1}}


def is_kept(rows: Int64[ndarray, " n"], share: float) -> ndarray:
    """Whether `bucket_filter` keeps each row."""
    return np.asarray(_buckets(rows) < round(share * _BUCKETS))


def write_work(
    folder: Path, num_vectors: int, dimensions: int, num_queries: int, shares: tuple[float, ...]
) -> Work:
    """Write an EmbeddingSet whose ids are row numbers, and find the exact neighbours under each filter."""
    num_centres = round(_CENTRES_PER_ROOT * num_vectors**0.5)
    queries = draw_vectors(num_queries, dimensions, num_centres, seed=1)
    np.save(folder / "queries.npy", queries)
    spec = ArtifactSpec(str(folder / "embeddings"), EmbeddingSetManifest, {}, {})
    artifacts.begin(spec)
    shares = (ALL, *(share for share in shares if share * num_vectors >= 2 * K))
    exact = {share: Neighbours.none(num_queries, depth(K)) for share in shares}
    for number, start in enumerate(range(0, num_vectors, _ROWS_PER_FILE)):
        rows = np.arange(start, min(start + _ROWS_PER_FILE, num_vectors))
        vectors = draw_vectors(len(rows), dimensions, num_centres, seed=2 + number)
        pq.write_table(_table(rows, vectors), folder / "embeddings" / f"train-{number:05d}.parquet")
        for share, found in exact.items():
            kept = is_kept(rows, share)
            here = exact_neighbours(queries, [(rows[kept], vectors[kept])], depth(K))
            exact[share] = merged([found, here], depth(K))
    fields = artifacts.common_fields(spec, artifacts.describe_files(spec.uri), num_vectors, 0.0)
    artifacts.publish(spec.uri, EmbeddingSetManifest(**fields, space_id="b" * 64, dimensions=dimensions))
    return Work(folder, num_vectors, exact)


def _table(rows: Int64[ndarray, " n"], vectors: Float32[ndarray, "n d"]) -> pa.Table:
    num = len(rows)
    ids = pa.array(rows).cast(pa.string())
    attributes = pa.array([f'{{"bucket": {bucket}}}' for bucket in _buckets(rows)])
    texts = [pa.array([text] * num) for text in ("train", "x.tar")]
    places = [pa.array([0] * num, pa.int64()), pa.array([1] * num, pa.int64()), pa.array(["h"] * num)]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    columns = [ids, pa.array(["title"] * num), attributes, *texts, *places, column]
    return pa.table(columns, schema=embedding_schema(vectors.shape[1]))


def _buckets(rows: Int64[ndarray, " n"]) -> Int64[ndarray, " n"]:
    """Multiplicative hashing (Knuth, vol. 3, 6.4): the same in every process, and no array of all rows."""
    mixed = (rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)
    return np.asarray(mixed % np.uint64(_BUCKETS), np.int64)
