"""The judgement without a log: how many of the first k neighbours share what is known of the query.

Search is exact, over the part of the catalogue the protocol allows, in chunks of bounded memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy import ndarray

from raysys.config.schema import AttributePrecisionConfig
from raysys.errors import InputError, did_you_mean
from raysys.evaluate.metrics import precision_at

ALL = "all"  # every attribute of `match` is equal
_MAX_SCORES_AT_ONCE = 1 << 22  # 16 MB of float32, about 100 MB with what is derived from it


def attribute_precision(
    vectors: Float[ndarray, "items dim"],
    attributes: Mapping[str, ndarray],
    splits: ndarray,
    protocol: AttributePrecisionConfig,
    groups: Sequence[str] | None = None,
) -> dict[str, Float[ndarray, " queries"]]:
    """Precision of the first k neighbours a query: under `all`, and under each attribute of `match` alone.

    Rows of `vectors` are L2-normalised and belong to the entries of `attributes` and `splits`.
    A missing value (None, NaN or empty text) equals nothing, not even another missing one. A query
    with fewer than k allowed neighbours has misses for the rest. A neighbour of the query's own group (the
    same thing, listed again) is left out.
    Raises: InputError if an attribute is unknown, or no query or no gallery remains.
    """
    sides = _sides(attributes, splits, protocol, groups)
    precision: dict[str, list[ndarray]] = {name: [] for name in (ALL, *protocol.match)}
    gallery_vectors = vectors[sides.gallery].astype(np.float32, copy=False)
    for queries in sides.query_chunks():
        scores = vectors[queries].astype(np.float32, copy=False) @ gallery_vectors.T
        allowed = sides.allowed(queries)
        nearest = _nearest(np.where(allowed, scores, -np.inf), protocol.k)
        is_real = np.take_along_axis(allowed, nearest, axis=1)
        for name, equal in sides.equal(queries, sides.gallery[nearest]).items():
            precision[name].append(precision_at(protocol.k, equal & is_real))
    return {name: np.concatenate(parts) for name, parts in precision.items()}


def chance_precision(
    attributes: Mapping[str, ndarray],
    splits: ndarray,
    protocol: AttributePrecisionConfig,
    groups: Sequence[str] | None = None,
) -> float:
    """The precision under `all` that a random order of the same galleries has on average, exactly."""
    sides = _sides(attributes, splits, protocol, groups)
    expected = []
    for queries in sides.query_chunks():
        allowed = sides.allowed(queries)
        right = sides.equal(queries, sides.gallery[None, :])[ALL] & allowed
        num_allowed = allowed.sum(axis=1)
        filled = np.minimum(num_allowed, protocol.k) / protocol.k
        expected.append(filled * right.sum(axis=1) / np.maximum(num_allowed, 1))
    return float(np.concatenate(expected).mean())


def value_codes(values: Iterable[object]) -> Int64[ndarray, " items"]:
    """A number for each distinct value, in order of appearance; -1 where it is missing."""
    codes: dict[object, int] = {}
    return np.fromiter(
        (-1 if _is_missing(value) else codes.setdefault(value, len(codes)) for value in values),
        dtype=np.int64,
    )


@dataclass(frozen=True)
class _Sides:
    """Who asks and who may answer, as rows of the catalogue, and what is compared, as codes."""

    queries: Int64[ndarray, " queries"]
    gallery: Int64[ndarray, " gallery"]
    match: dict[str, Int64[ndarray, " items"]]
    exclude: list[Int64[ndarray, " items"]]

    def query_chunks(self) -> Iterator[Int64[ndarray, " chunk"]]:
        size = max(1, _MAX_SCORES_AT_ONCE // len(self.gallery))
        for start in range(0, len(self.queries), size):
            yield self.queries[start : start + size]

    def allowed(self, queries: Int64[ndarray, " chunk"]) -> Bool[ndarray, "chunk gallery"]:
        rows, others = queries[:, None], self.gallery[None, :]
        allowed = np.asarray(rows != others)
        for codes in self.exclude:
            allowed &= ~_same(codes, rows, others)
        return allowed

    def equal(
        self, queries: Int64[ndarray, " chunk"], others: Int64[ndarray, "#chunk near"]
    ) -> dict[str, Bool[ndarray, "chunk near"]]:
        equal = {name: _same(codes, queries[:, None], others) for name, codes in self.match.items()}
        return {ALL: np.logical_and.reduce(list(equal.values())), **equal}


def _sides(
    attributes: Mapping[str, ndarray],
    splits: ndarray,
    protocol: AttributePrecisionConfig,
    groups: Sequence[str] | None,
) -> _Sides:
    for key, names in (
        ("where", protocol.where),
        ("exclude_same", protocol.exclude_same),
        ("match", protocol.match),
    ):
        for name in names:
            _require(name, attributes, key)
    if not protocol.match:
        raise InputError(
            "evaluate.attribute_precision.match: empty; "
            "name at least one attribute that a right neighbour shares"
        )
    admitted = np.ones(len(splits), dtype=bool)
    for name, wanted in protocol.where.items():
        admitted &= np.asarray([str(value) == wanted for value in attributes[name]], dtype=bool)
    queries = np.flatnonzero(admitted & (splits == protocol.query_split))
    gallery = np.flatnonzero(admitted & np.isin(splits, protocol.gallery_splits))
    for side, rows, of in (
        ("query", queries, protocol.query_split),
        ("gallery", gallery, protocol.gallery_splits),
    ):
        if not len(rows):
            raise InputError(
                f"evaluate.attribute_precision: no {side} item remains of {len(splits)} "
                f"(split: {of}, where: {protocol.where}); "
                "widen where, or choose another split"
            )
    return _Sides(
        queries=queries,
        gallery=gallery,
        match={name: value_codes(attributes[name]) for name in protocol.match},
        exclude=[value_codes(attributes[name]) for name in protocol.exclude_same]
        + ([] if groups is None else [value_codes(groups)]),
    )


def _require(name: str, attributes: Mapping[str, ndarray], key: str) -> None:
    if name not in attributes:
        found = ", ".join(sorted(attributes)) or "none"
        raise InputError(
            f"evaluate.attribute_precision.{key}: unknown attribute '{name}' (the items have: {found})"
            + (did_you_mean(name, attributes) or "; name one of them")
        )


def _is_missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _same(codes: ndarray, rows: ndarray, others: ndarray) -> ndarray:
    return np.asarray((codes[rows] == codes[others]) & (codes[rows] >= 0))


def _nearest(scores: Float[ndarray, "chunk gallery"], k: int) -> Int64[ndarray, "chunk k"]:
    k = min(k, scores.shape[1])
    found = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)
