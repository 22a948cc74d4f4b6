"""The photos of a report: some of the catalogue, and query items with their nearest items before and after.

Readers believe what they see, so the choice follows rules that the report states: photos and queries are
random, and one query, marked as such, is the one with the largest gain.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from numpy import ndarray
from PIL import Image

from raysys.artifacts.embedding_set import bad_rows
from raysys.config.schema import EvaluateConfig, SimulatedLog
from raysys.encoder.preprocess import decode_image
from raysys.evaluate.attribute_precision import value_codes
from raysys.evaluate.interaction_log import InteractionLog
from raysys.evaluate.items import EvaluationItems
from raysys.evaluate.report import CataloguePhoto, NeighbourPhoto, QueryNeighbours
from raysys.evaluate.simulation import RELEVANT_FROM, RelevanceModel, attributes_and_groups
from raysys.index.exact import exact_search

NUM_NEIGHBOURS = 5
_MAX_CANDIDATES = 1000  # query items of the log among which the largest gain is searched
_THUMBNAIL_PX = 96


def catalogue_photos(items: EvaluationItems, section: EvaluateConfig) -> list[CataloguePhoto]:
    """`section.catalogue_photos` random items."""
    rows = np.random.default_rng(section.seed).permutation(len(items.item_ids))[: section.catalogue_photos]
    return [CataloguePhoto(_thumbnail_jpeg(items.photos[row]), items.titles[row]) for row in rows]


def query_neighbours(
    start: Float32[ndarray, "items d"],
    delivered: Float32[ndarray, "items d"],
    items: EvaluationItems,
    log: InteractionLog,
    latent_uri: str | None,
    section: EvaluateConfig,
) -> list[QueryNeighbours]:
    """The query item with the largest gain, if there is one, then `section.neighbour_grid_queries` random
    ones, each with its nearest items by `start` and by `delivered`.

    Row i of both belongs to item i. Items of the query's own group (listings of the same thing) are left out.
    """
    if not section.neighbour_grid_queries:
        return []
    relevance = _Relevance(items, log, latent_uri, section)
    vectors, groups = (start, delivered), value_codes(relevance.groups)
    candidates = _usable(_query_rows(items, log, section.seed), vectors)
    gains = []
    for candidate in candidates:
        before, after = (nearest_rows(side, candidate, groups)[1] for side in vectors)
        gains.append([relevance.of(candidate, rows) for rows in (before, after)])
    best = largest_gain(*(_padded(side) for side in zip(*gains, strict=True))) if gains else None
    first = [] if best is None else [int(candidates[best])]
    order = np.random.default_rng(section.seed).permutation(len(items.item_ids))
    random_rows = [row for row in _usable(order, vectors) if row not in first]
    queries = [*first, *random_rows[: section.neighbour_grid_queries]]
    return [
        QueryNeighbours(
            title=items.titles[row],
            photo=_thumbnail_jpeg(items.photos[row]),
            start=_photos_of(start, row, groups, items, relevance),
            delivered=_photos_of(delivered, row, groups, items, relevance),
            has_largest_gain=row in first,
        )
        for row in queries
    ]


def largest_gain(
    before: Float[ndarray, "queries neighbours"], after: Float[ndarray, "queries neighbours"]
) -> int | None:
    """The query with the largest gain among those whose nearest items after fine-tuning are right.

    Both are the relevance of each query's nearest items, before and after. Right are the queries that have
    the most relevant items after fine-tuning. Among them, the gain is the change of the mean relevance; of
    equal gains, the first. None if no query has a relevant item, or if the gain is not above 0.
    """
    num_relevant = (after >= RELEVANT_FROM).sum(axis=1)
    if not num_relevant.any():
        return None
    gain = np.where(num_relevant == num_relevant.max(), after.mean(axis=1) - before.mean(axis=1), -np.inf)
    best = int(gain.argmax())
    return best if gain[best] > 0 else None


def nearest_rows(
    vectors: Float32[ndarray, "items d"], query: int, groups: Int64[ndarray, " items"]
) -> tuple[Float32[ndarray, " k"], Int64[ndarray, " k"]]:
    """Cosines and rows of the five nearest items, without the query's own group (by code, at least 0)."""
    is_own = (groups == groups[query]) & (groups >= 0)
    is_own[query] = True
    scores, rows = exact_search(vectors[query][None], vectors, NUM_NEIGHBOURS + int(is_own.sum()))
    is_other = ~is_own[rows[0]] & np.isfinite(scores[0])  # an item without a vector has no score
    return scores[0][is_other][:NUM_NEIGHBOURS], rows[0][is_other][:NUM_NEIGHBOURS]


def relevance_rule(section: EvaluateConfig) -> str:
    """When an item counts as relevant to a query item, as the end of a sentence."""
    if not isinstance(section.log, SimulatedLog):
        return "was tapped for this query in the log"
    total = sum(section.log.weights.values())
    weights = ", ".join(f"{name} {weight / total:.2g}" for name, weight in section.log.weights.items())
    sums = f"its equal attributes ({weights}) sum to at least {RELEVANT_FROM:g}"
    return f"is relevant by the simulated log: {sums}"


class _Relevance:
    """How relevant an item is to a query item, by the log: the relevance of which a simulated log generated
    its taps; in a recorded log, 1 for the items that were tapped for this query."""

    def __init__(
        self, items: EvaluationItems, log: InteractionLog, latent_uri: str | None, section: EvaluateConfig
    ) -> None:
        self.groups: Sequence[str] = items.groups
        self._item_ids = items.item_ids
        self._model: RelevanceModel | None = None
        self._tapped_ids: dict[str, set[str]] = {}
        if isinstance(section.log, SimulatedLog):
            attributes, self.groups = attributes_and_groups(items, latent_uri)
            rows = np.arange(len(items.item_ids))
            self._model = RelevanceModel.from_attributes(attributes, section.log.weights, rows)
            return
        for query_id, shown_ids, tapped in zip(log.query_ids, log.shown_ids, log.tapped, strict=True):
            tapped_ids = {item_id for item_id, is_tapped in zip(shown_ids, tapped, strict=False) if is_tapped}
            self._tapped_ids.setdefault(query_id, set()).update(tapped_ids)

    def of(self, query: int, rows: Int64[ndarray, " k"]) -> Float[ndarray, " k"]:
        """The relevance of the items `rows`, from 0 to 1."""
        if self._model is not None:
            return np.asarray(self._model.relevance_to(query)[rows])
        tapped_ids = self._tapped_ids.get(self._item_ids[query], set())
        return np.array([float(self._item_ids[row] in tapped_ids) for row in rows])


def _query_rows(items: EvaluationItems, log: InteractionLog, seed: int) -> Int64[ndarray, " queries"]:
    """The query items of the log, at most 1,000 of them."""
    query_ids = set(log.query_ids)
    rows = np.flatnonzero([item_id in query_ids for item_id in items.item_ids])
    if len(rows) > _MAX_CANDIDATES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MAX_CANDIDATES, replace=False))
    return rows


def _usable(rows: Int64[ndarray, " n"], vectors: Sequence[Float32[ndarray, "items d"]]) -> list[int]:
    """The rows that have a vector on both sides, in the same order."""
    bad = {int(row) for side in vectors for row in bad_rows(side)}
    return [int(row) for row in rows if row not in bad]


def _padded(rows: Sequence[Float[ndarray, " k"]]) -> Float[ndarray, "queries neighbours"]:
    """Rows of equal length: a query with few other items has irrelevant ones at its end."""
    padded = np.zeros((len(rows), NUM_NEIGHBOURS))
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded


def _photos_of(
    vectors: Float32[ndarray, "items d"],
    query: int,
    groups: Int64[ndarray, " items"],
    items: EvaluationItems,
    relevance: _Relevance,
) -> list[NeighbourPhoto]:
    scores, rows = nearest_rows(vectors, query, groups)
    is_relevant: Bool[ndarray, " k"] = relevance.of(query, rows) >= RELEVANT_FROM
    return [
        NeighbourPhoto(_thumbnail_jpeg(items.photos[row]), items.titles[row], float(score), bool(relevant))
        for score, row, relevant in zip(scores, rows, is_relevant, strict=True)
    ]


def _thumbnail_jpeg(photo: bytes) -> bytes:
    thumbnail = decode_image(photo)
    thumbnail.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    thumbnail.save(encoded, "JPEG", quality=80)
    return encoded.getvalue()
