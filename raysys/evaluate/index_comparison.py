"""What the served index loses against exact search, on the queries of the evaluation.

Re-ranking compares vectors and never searches. An index loses what its search does not find among all items,
so it is searched as the service does: at its own settings, for k neighbours without the query item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from raysys.config.schema import EvaluateConfig
from raysys.evaluate.attribute_precision import is_missing
from raysys.evaluate.interaction_log import InteractionLog
from raysys.evaluate.metrics import PerQuery, precision_at
from raysys.evaluate.reranking import mean_intervals
from raysys.evaluate.significance import Interval, bootstrap_lift
from raysys.index.device import CPU, Device
from raysys.index.exact import hits
from raysys.index.search import Neighbour, Searcher

EXACT, INDEX = "exact", "index"
_MAX_QUERIES = 1000  # exact search compares each of them with every vector


@dataclass(frozen=True)
class IndexComparison:
    """The served index against exact search over the same vectors."""

    kind: str
    settings: Mapping[str, int]
    """`ef_search` and the like; empty for an exact index."""
    num_items: int
    num_queries: int
    num_unknown: int
    """Query items of the log that the index lacks."""
    recall: Mapping[str, Interval]
    """`recall@1` and `recall@k`."""
    precision_name: str | None
    """`p@5`, for example; None if attribute precision is not configured."""
    precision: Mapping[str, Interval]
    """The share of neighbours with all the query's attribute values, by `exact` search and by the `index`."""
    precision_lift: Interval | None
    """Relative change of the index against exact search, paired."""


def compare_index(
    uri: str, log: InteractionLog, section: EvaluateConfig, device: Device = CPU
) -> IndexComparison | None:
    """Search at most 1,000 query items of the log in the index and exactly; None if it has none of them."""
    searcher = Searcher(uri, device)
    query_ids = list(dict.fromkeys(log.query_ids))
    rows = np.array([searcher.row_of(query_id) for query_id in query_ids if query_id in searcher], np.int64)
    num_unknown = len(query_ids) - len(rows)
    if not len(rows):
        return None
    if len(rows) > _MAX_QUERIES:
        rows = np.random.default_rng(section.seed).choice(rows, _MAX_QUERIES, replace=False)
    protocol = section.attribute_precision
    k = max(section.index_k, protocol.k if protocol else 1)
    vectors = np.stack([searcher.vector(int(row)) for row in rows])
    excluded = [int(row) for row in rows]
    by_index = searcher.search(vectors, section.index_k, exclude_rows=excluded)
    exactly = searcher.search(vectors, k, exclude_rows=excluded, is_exact=True)
    recall = {
        f"recall@{at}": _recalls(by_index, exactly, at) for at in sorted({1, section.index_k}) if exactly[0]
    }
    per_query: dict[str, PerQuery] = {}
    if protocol is not None:
        if protocol.k > section.index_k:
            by_index = searcher.search(vectors, protocol.k, exclude_rows=excluded)
        queries = [searcher.item(row).attributes for row in excluded]
        has_values = [not any(is_missing(query.get(name)) for name in protocol.match) for query in queries]
        if any(has_values):
            for name, found in ((EXACT, exactly), (INDEX, by_index)):
                precision = _precisions(queries, found, protocol.match, protocol.k)
                per_query[name] = precision[has_values]
    samples, seed = section.bootstrap_samples, section.seed
    return IndexComparison(
        kind=searcher.manifest.index_kind,
        settings=searcher.manifest.search,
        num_items=len(searcher),
        num_queries=len(rows),
        num_unknown=num_unknown,
        recall=mean_intervals(recall, samples=samples, seed=seed),
        precision_name=f"p@{protocol.k}" if protocol and per_query else None,
        precision=mean_intervals(per_query, samples=samples, seed=seed),
        precision_lift=bootstrap_lift(per_query[INDEX], per_query[EXACT], samples=samples, seed=seed)
        if per_query
        else None,
    )


def _recalls(found: Sequence[Sequence[Neighbour]], exact: Sequence[Sequence[Neighbour]], k: int) -> PerQuery:
    """Share of each query's k exact neighbours for which the index has one as near."""
    k = min(k, len(exact[0]))
    return np.asarray(hits(_scores(found, k), _scores(exact, k)).mean(axis=1))


def _scores(found: Sequence[Sequence[Neighbour]], k: int) -> ndarray:
    """The first k scores of each query; -inf where the search returned fewer."""
    scores = np.full((len(found), k), -np.inf, np.float32)
    for number, neighbours in enumerate(found):
        values = [neighbour.score for neighbour in neighbours[:k]]
        scores[number, : len(values)] = values
    return scores


def _precisions(
    queries: Sequence[Mapping[str, object]],
    found: Sequence[Sequence[Neighbour]],
    match: Sequence[str],
    k: int,
) -> PerQuery:
    is_equal = np.zeros((len(queries), k), dtype=bool)
    for number, (query, neighbours) in enumerate(zip(queries, found, strict=True)):
        for rank, neighbour in enumerate(neighbours[:k]):
            attributes = neighbour.item.attributes
            is_equal[number, rank] = all(attributes.get(name) == query.get(name) for name in match)
    return precision_at(k, is_equal)
