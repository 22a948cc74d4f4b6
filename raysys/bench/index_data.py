"""The input of `raysys bench index`: drawn vectors as an EmbeddingSet, queries, exact neighbours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest
from raysys.columns import embedding_schema
from raysys.index.filters import Filter
from raysys.index.neighbours import Neighbours, depth, exact_neighbours, merged
from raysys.index.passing import Passing

K = 10
_ROWS_PER_FILE = 65_536
_SPECTRUM = 0.95  # variance of dimension i is i ** -0.95: a participation ratio of 21 in 128 dimensions
_CENTRES_PER_ROOT = 1.0  # centres of the mixture as a multiple of the root of the vectors
_BETWEEN = 0.5  # share of the variance between centres
_BUCKETS = 10_000


@dataclass(frozen=True)
class BenchFilter:
    """Keeps the rows whose value of an attribute is at most a limit.

    `bucket` is a random number. `region` is the first coordinate of the vector, so that most queries are in
    another region than the rows that pass.
    """

    attribute: Literal["bucket", "region"]
    share: float
    limit: float

    @property
    def where(self) -> Filter:
        """The filter of a search."""
        return {self.attribute: {"lte": self.limit}}

    @property
    def text(self) -> str:
        """For the name of a case."""
        kind = "random" if self.attribute == "bucket" else "a region of"
        return f"a filter keeps {kind} {self.share * 100:g} %"

    def is_kept(self, rows: Int64[ndarray, " n"], vectors: Float32[ndarray, "n d"]) -> Bool[ndarray, " n"]:
        """Whether each row passes."""
        return np.asarray(_values(rows, vectors)[self.attribute] <= self.limit)


@dataclass(frozen=True)
class Work:
    """What is searched for, and where the files are."""

    folder: Path
    num_vectors: int
    exact: Mapping[BenchFilter | None, Neighbours]
    """By the filter of a search; those that keep too few rows are left out."""
    kept: Mapping[BenchFilter, Passing]

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


def write_work(
    folder: Path,
    num_vectors: int,
    dimensions: int,
    num_queries: int,
    shares: tuple[float, ...],
    region_shares: tuple[float, ...] = (),
    space_id: str = "b" * 64,
) -> Work:
    """Write an EmbeddingSet whose ids are row numbers, and find the exact neighbours under each filter."""
    num_centres = round(_CENTRES_PER_ROOT * num_vectors**0.5)
    queries = draw_vectors(num_queries, dimensions, num_centres, seed=1)
    np.save(folder / "queries.npy", queries)
    spec = ArtifactSpec(str(folder / "embeddings"), EmbeddingSetManifest, {}, {})
    artifacts.begin(spec)
    filters = [BenchFilter("bucket", share, round(share * _BUCKETS) - 1) for share in shares]
    sample = draw_vectors(_ROWS_PER_FILE, dimensions, num_centres, seed=2)[:, 0]
    filters += [BenchFilter("region", share, float(np.quantile(sample, share))) for share in region_shares]
    filters = [one for one in filters if one.share * num_vectors >= 2 * K]
    exact = {one: Neighbours.none(num_queries, depth(K)) for one in (None, *filters)}
    kept: dict[BenchFilter, list[ndarray]] = {one: [] for one in filters}
    for number, start in enumerate(range(0, num_vectors, _ROWS_PER_FILE)):
        rows = np.arange(start, min(start + _ROWS_PER_FILE, num_vectors))
        vectors = draw_vectors(len(rows), dimensions, num_centres, seed=2 + number)
        pq.write_table(_table(rows, vectors), folder / "embeddings" / f"train-{number:05d}.parquet")
        for one, found in exact.items():
            is_kept = np.ones(len(rows), bool) if one is None else one.is_kept(rows, vectors)
            here = exact_neighbours(queries, [(rows[is_kept], vectors[is_kept])], depth(K))
            exact[one] = merged([found, here], depth(K))
            if one is not None:
                kept[one].append(is_kept)
    fields = artifacts.common_fields(spec, artifacts.describe_files(spec.uri), num_vectors, 0.0)
    artifacts.publish(spec.uri, EmbeddingSetManifest(**fields, space_id=space_id, dimensions=dimensions))
    passing = {one: Passing.of_mask(np.concatenate(masks)) for one, masks in kept.items()}
    return Work(folder, num_vectors, exact, passing)


def _table(rows: Int64[ndarray, " n"], vectors: Float32[ndarray, "n d"]) -> pa.Table:
    num = len(rows)
    ids = pa.array(rows).cast(pa.string())
    values = {name: column.tolist() for name, column in _values(rows, vectors).items()}
    attributes = pa.array(
        [json.dumps(dict(zip(values, row, strict=True))) for row in zip(*values.values(), strict=True)]
    )
    texts = [pa.array([text] * num) for text in ("", "train", "x.tar")]
    places = [pa.array([0] * num, pa.int64()), pa.array([1] * num, pa.int64()), pa.array(["h"] * num)]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    columns = [ids, pa.array(["title"] * num), attributes, *texts, *places, column]
    return pa.table(columns, schema=embedding_schema(vectors.shape[1]))


def _values(rows: Int64[ndarray, " n"], vectors: Float32[ndarray, "n d"]) -> dict[str, ndarray]:
    """The attributes of rows.

    `bucket` is a multiplicative hash (Knuth, vol. 3, 6.4): the same in every process.
    """
    mixed = (rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)
    return {"bucket": (mixed % np.uint64(_BUCKETS)).astype(np.int64), "region": vectors[:, 0].astype(float)}
