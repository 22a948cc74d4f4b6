"""Measure every number of dimensions in every encoding: bytes, latency, and what is lost of the full space.

A vector of fewer dimensions is the PCA's first components, normalised again; one PCA serves all of them. The
search is exhaustive, so that the dimensions and the encoding are compared and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from numpy import ndarray

from raysys.encoder.projection import Projection, fit_projection
from raysys.errors import InputError
from raysys.evaluate.frontier.judgement import Judgement
from raysys.evaluate.frontier.vectors import StoredVectors
from raysys.evaluate.metrics import PerQuery
from raysys.evaluate.reranking import mean_intervals
from raysys.evaluate.significance import Interval, bootstrap_lift
from raysys.index.encodings import Encoder, Encoding, encodings_of
from raysys.index.exact import hits
from raysys.index.measure import Latency, latency_of, search_times_ms
from raysys.index.neighbours import exact_neighbours
from raysys.index.shards import Shard
from raysys.tracking.logs import log

_SMALLEST = 32  # of the dimensions that are compared by default


@dataclass(frozen=True)
class Row:
    """One number of dimensions in one encoding."""

    dimensions: int
    encoding: Encoding
    bytes_per_vector: int
    latency: Latency
    metrics: Mapping[str, Interval]
    """`recall@10`, and `ndcg@5` and `p@5` where they are measured."""
    changes: Mapping[str, Interval]
    """The relative change of nDCG@5 and P@k against the full space, paired by query; not of that itself."""


@dataclass(frozen=True)
class LeftOut:
    """A row that cannot be measured; `encoding` is None for all of these dimensions."""

    dimensions: int
    encoding: str | None
    reason: str


def measure(
    stored: StoredVectors,
    judgement: Judgement,
    sizes: Sequence[int],
    *,
    k: int,
    whiten: bool,
    samples: int,
    seed: int,
) -> tuple[list[Row], list[LeftOut]]:
    """The rows by descending dimensions, the full space in fp32 first, and what is left out.

    `stored` has the vectors of all items of `judgement`; `sizes` are those of `sizes_to_compare`; `k` is that
    of the recall; `samples` are those of the bootstrap.
    """
    full = stored.base.shape[1]
    projections, left_out = _projections(stored, [size for size in sizes if size < full], whiten)
    truth, judged = _Truth.of(stored, k), stored.vectors_of(judgement.items.item_ids)
    measured: list[_Measured] = []
    for size in sizes:
        base, vectors = stored.base, judged
        if size < full:
            if size not in projections:
                continue
            base, vectors = projections[size].apply(base), projections[size].apply(vectors)
        log.info(" frontier  %d dimensions", size)
        for encoding in encodings_of(size):
            if len(base) < encoding.min_trained:
                reason = f"its code is trained with at least {encoding.min_trained} items, found {len(base)}"
                left_out.append(LeftOut(size, encoding.name, reason))
            else:
                measured.append(_measure(Encoder(encoding, base), base, truth, judgement, vectors))
    return _with_intervals(measured, truth.metric, samples, seed), left_out


def sizes_to_compare(wanted: Sequence[int] | None, full: int) -> list[int]:
    """The numbers of dimensions in descending order, the full one first.

    Raises: InputError for one above the full one.
    """
    if wanted is None:
        return [full, *sorted(_powers_below(full), reverse=True)]
    if wanted and max(wanted) > full:
        raise InputError(
            f"frontier.dimensions: {max(wanted)} is above the {full} dimensions of the vectors; "
            f"set it to {full} or less, or to null"
        )
    return sorted({full, *wanted}, reverse=True)


def pareto_optimal(costs: Float[ndarray, " rows"], values: Float[ndarray, " rows"]) -> Bool[ndarray, " rows"]:
    """Rows that no other row beats: none costs as little and is better, or costs less and is as good."""
    is_as_cheap = costs[None, :] <= costs[:, None]
    is_as_good = values[None, :] >= values[:, None]
    is_better = (costs[None, :] < costs[:, None]) | (values[None, :] > values[:, None])
    return np.asarray(~(is_as_cheap & is_as_good & is_better).any(axis=1))


@dataclass(frozen=True)
class _Measured:
    """A row before the bootstrap."""

    dimensions: int
    encoding: Encoding
    bytes_per_vector: int
    latency: Latency
    recall: PerQuery
    quality: Mapping[str, PerQuery]


def _measure(
    encoder: Encoder,
    base: Float32[ndarray, "n d"],
    truth: _Truth,
    judgement: Judgement,
    vectors: Float32[ndarray, "items d"],
) -> _Measured:
    """Measure an encoding; `base` and `vectors` have its number of dimensions."""
    quality = judgement.metrics(vectors, encoder.scores)
    shard, queries = Shard(encoder.filled(base), {}), base[truth.query_rows]
    recall = truth.recalls(shard, queries)
    latency = latency_of(search_times_ms(shard, queries, truth.k))
    return _Measured(base.shape[1], encoder.encoding, encoder.bytes_per_vector, latency, recall, quality)


def _with_intervals(measured: Sequence[_Measured], recall: str, samples: int, seed: int) -> list[Row]:
    """The rows; changes are those against the first one."""
    reference = measured[0].quality
    return [
        Row(
            dimensions=row.dimensions,
            encoding=row.encoding,
            bytes_per_vector=row.bytes_per_vector,
            latency=row.latency,
            metrics=mean_intervals({recall: row.recall, **row.quality}, samples=samples, seed=seed),
            changes={
                name: bootstrap_lift(values, reference[name], samples=samples, seed=seed)
                for name, values in row.quality.items()
                if row is not measured[0]
            },
        )
        for row in measured
    ]


@dataclass(frozen=True)
class _Truth:
    """The exact neighbours of the queries in the full space, without the query itself."""

    base: Float32[ndarray, "n d"]
    query_rows: Int64[ndarray, " q"]
    scores: Float32[ndarray, "q k"]

    @classmethod
    def of(cls, stored: StoredVectors, k: int) -> _Truth:
        k = min(k, len(stored.base) - 1)
        queries = stored.base[stored.query_rows]
        found = exact_neighbours(queries, [(np.arange(len(stored.base)), stored.base)], k + 1)
        rows = _without_itself(found.rows, stored.query_rows, k)
        return cls(stored.base, stored.query_rows, _cosines(stored.base, stored.query_rows, rows))

    @property
    def k(self) -> int:
        return int(self.scores.shape[1])

    @property
    def metric(self) -> str:
        return f"recall@{self.k}"

    def recalls(self, shard: Shard, queries: Float32[ndarray, "q d"]) -> PerQuery:
        """The share of each query's k results that are as near, in the full space, as its exact ones."""
        found = shard.search(queries, self.k + 1)
        rows = _without_itself(found.rows, self.query_rows, self.k)
        return np.asarray(hits(_cosines(self.base, self.query_rows, rows), self.scores).mean(axis=1))


def _without_itself(rows: ndarray, query_rows: ndarray, k: int) -> Int64[ndarray, "q k"]:
    """The first k rows of each result other than the query's own."""
    order = np.argsort(rows == query_rows[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, axis=1)


def _cosines(base: ndarray, query_rows: ndarray, rows: ndarray) -> Float32[ndarray, "q k"]:
    """In descending order; the last one of exact results is the k-th neighbour's."""
    cosines = np.stack([base[found] @ base[query] for query, found in zip(query_rows, rows, strict=True)])
    return -np.sort(-cosines, axis=1)


def _projections(
    stored: StoredVectors, sizes: Sequence[int], whiten: bool
) -> tuple[dict[int, Projection], list[LeftOut]]:
    """The projection to each number of dimensions, of one PCA; those that it cannot have are left out."""
    moments = stored.moments
    limit = moments.num if moments.num > 1 and moments.has_variance else 0
    usable = [size for size in sizes if size <= limit]
    reason = f"the PCA is fitted on the train split, which has {moments.num} vectors"
    if moments.num > 1 and not limit:
        reason += ", all of them equal"
    left_out = [LeftOut(size, None, reason) for size in sizes if size not in usable]
    if not usable:
        return {}, left_out
    fitted = fit_projection(moments, max(usable), whiten=whiten)
    return {size: fitted.first(size) for size in usable}, left_out


def _powers_below(full: int) -> Iterator[int]:
    size = _SMALLEST
    while size < full:
        yield size
        size *= 2
