"""Attribute precision: the share of a query's k nearest items that have the query's attribute values.

Needs no log. The protocol names the queries, the gallery and the attributes. The search is exact and runs in
chunks of bounded memory.
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
from raysys.evaluate.metrics import Score, inner_products, precision_at

ALL = "all"  # all attributes of `match` are equal
_MAX_SCORES_AT_ONCE = 1 << 22  # 16 MB of float32, about 100 MB with the arrays computed from it


def attribute_precision(
    vectors: Float[ndarray, "items dim"],
    attributes: Mapping[str, ndarray],
    splits: ndarray,
    protocol: AttributePrecisionConfig,
    groups: Sequence[str] | None = None,
    score: Score = inner_products,
) -> dict[str, Float[ndarray, " queries"]]:
    """Precision of each query's k nearest items: under `all`, and under each attribute of `match` alone.

    Row i of `vectors` is L2-normalised and belongs to entry i of each attribute, `splits` and `groups`.
    A missing value (None, NaN or empty text) equals nothing, not even another missing one. A query with
    fewer than k allowed neighbours has misses for the rest. Items of the query's own group (listings of
    the same thing) are left out. `score` compares the vectors as an index does.
    Raises: InputError if an attribute is unknown, or if there is no query or no gallery item.
    """
    encoded = _encode(attributes, splits, protocol, groups)
    precision: dict[str, list[ndarray]] = {name: [] for name in (ALL, *protocol.match)}
    gallery_vectors = vectors[encoded.gallery].astype(np.float32, copy=False)
    for queries in encoded.query_chunks():
        scores = score(vectors[queries].astype(np.float32, copy=False), gallery_vectors)
        is_allowed = encoded.is_allowed(queries)
        nearest = _top_columns(np.where(is_allowed, scores, -np.inf), protocol.k)
        is_nearest_allowed = np.take_along_axis(is_allowed, nearest, axis=1)
        for name, is_equal in encoded.is_equal(queries, encoded.gallery[nearest]).items():
            precision[name].append(precision_at(protocol.k, is_equal & is_nearest_allowed))
    return {name: np.concatenate(chunks) for name, chunks in precision.items()}


def chance_precision(
    attributes: Mapping[str, ndarray],
    splits: ndarray,
    protocol: AttributePrecisionConfig,
    groups: Sequence[str] | None = None,
) -> float:
    """The chance level: the expected precision under `all` of a random order of the gallery, exactly."""
    encoded = _encode(attributes, splits, protocol, groups)
    expected = []
    for queries in encoded.query_chunks():
        is_allowed = encoded.is_allowed(queries)
        is_correct = encoded.is_equal(queries, encoded.gallery[None, :])[ALL] & is_allowed
        num_allowed = is_allowed.sum(axis=1)
        filled = np.minimum(num_allowed, protocol.k) / protocol.k
        expected.append(filled * is_correct.sum(axis=1) / np.maximum(num_allowed, 1))
    return float(np.concatenate(expected).mean())


def value_codes(values: Iterable[object]) -> Int64[ndarray, " items"]:
    """An integer code for each value, numbered by first appearance; -1 for a missing value."""
    codes: dict[object, int] = {}
    return np.fromiter(
        (-1 if is_missing(value) else codes.setdefault(value, len(codes)) for value in values),
        dtype=np.int64,
    )


def is_missing(value: object) -> bool:
    """Whether an attribute has no value: None, NaN or empty text."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


@dataclass(frozen=True)
class _EncodedProtocol:
    """Row numbers of the query items and the gallery, and integer codes of the compared attributes."""

    queries: Int64[ndarray, " queries"]
    gallery: Int64[ndarray, " gallery"]
    match: dict[str, Int64[ndarray, " items"]]
    exclude: list[Int64[ndarray, " items"]]

    def query_chunks(self) -> Iterator[Int64[ndarray, " chunk"]]:
        size = max(1, _MAX_SCORES_AT_ONCE // len(self.gallery))
        for start in range(0, len(self.queries), size):
            yield self.queries[start : start + size]

    def is_allowed(self, queries: Int64[ndarray, " chunk"]) -> Bool[ndarray, "chunk gallery"]:
        rows, gallery_rows = queries[:, None], self.gallery[None, :]
        is_allowed = np.asarray(rows != gallery_rows)
        for codes in self.exclude:
            is_allowed &= ~_has_same_code(codes, rows, gallery_rows)
        return is_allowed

    def is_equal(
        self, queries: Int64[ndarray, " chunk"], others: Int64[ndarray, "#chunk near"]
    ) -> dict[str, Bool[ndarray, "chunk near"]]:
        is_equal = {
            name: _has_same_code(codes, queries[:, None], others) for name, codes in self.match.items()
        }
        return {ALL: np.logical_and.reduce(list(is_equal.values())), **is_equal}


def _encode(
    attributes: Mapping[str, ndarray],
    splits: ndarray,
    protocol: AttributePrecisionConfig,
    groups: Sequence[str] | None,
) -> _EncodedProtocol:
    for key, names in (
        ("where", protocol.where),
        ("exclude_same", protocol.exclude_same),
        ("match", protocol.match),
    ):
        for name in names:
            _require_attribute(name, attributes, key)
    if not protocol.match:
        raise InputError(
            "evaluate.attribute_precision.match: empty; "
            "name at least one attribute that a correct neighbour shares"
        )
    is_selected = np.ones(len(splits), dtype=bool)
    for name, required in protocol.where.items():
        is_selected &= np.asarray([str(value) == required for value in attributes[name]], dtype=bool)
    queries = np.flatnonzero(is_selected & (splits == protocol.query_split))
    gallery = np.flatnonzero(is_selected & np.isin(splits, protocol.gallery_splits))
    for role, rows, split in (
        ("query", queries, protocol.query_split),
        ("gallery", gallery, protocol.gallery_splits),
    ):
        if not len(rows):
            raise InputError(
                f"evaluate.attribute_precision: no {role} item remains of {len(splits)} "
                f"(split: {split}, where: {protocol.where}); "
                "widen where, or choose another split"
            )
    return _EncodedProtocol(
        queries=queries,
        gallery=gallery,
        match={name: value_codes(attributes[name]) for name in protocol.match},
        exclude=[value_codes(attributes[name]) for name in protocol.exclude_same]
        + ([] if groups is None else [value_codes(groups)]),
    )


def _require_attribute(name: str, attributes: Mapping[str, ndarray], key: str) -> None:
    if name not in attributes:
        found = ", ".join(sorted(attributes)) or "none"
        raise InputError(
            f"evaluate.attribute_precision.{key}: unknown attribute '{name}' (the items have: {found})"
            + (did_you_mean(name, attributes) or "; name one of them")
        )


def _has_same_code(codes: ndarray, rows: ndarray, others: ndarray) -> ndarray:
    return np.asarray((codes[rows] == codes[others]) & (codes[rows] >= 0))


def _top_columns(scores: Float[ndarray, "chunk gallery"], k: int) -> Int64[ndarray, "chunk k"]:
    """The columns of the k highest scores of each row, in descending order."""
    k = min(k, scores.shape[1])
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)
