"""Re-ranking protocol: order the items that a shelf showed by score, and compare the order with the taps.

Pure functions on arrays: `evaluate_vectors` evaluates any vectors on any log, without Ray, shards or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from raysys.errors import InputError
from raysys.evaluate.interaction_log import InteractionLog
from raysys.evaluate.metrics import PerQuery, Score, hit_at, inner_products, ndcg_at, rank_by
from raysys.evaluate.significance import Interval, bootstrap_lift, bootstrap_mean

NDCG_AT_5, HIT_AT_1, HIT_AT_3 = "ndcg@5", "hit@1", "hit@3"
ZERO_SHOT, FINE_TUNED, WISE_FT = "zero_shot", "fine_tuned", "wise_ft"  # systems that others are compared with


@dataclass(frozen=True)
class SystemScores:
    """What one system computes: a score of each shown item, and item vectors if it has any."""

    name: str
    scores: Float[ndarray, "queries max_shown"] | None
    """None if the system is not available."""
    vectors: Float[ndarray, "items dim"] | None
    reason: str | None = None
    """Why the system is not available."""


@dataclass(frozen=True)
class SystemResult:
    """The metrics of one system with their intervals."""

    name: str
    available: bool
    reason: str | None
    """Why the system is not available."""
    metrics: dict[str, Interval]
    """`ndcg@5`, `hit@1`, `hit@3`; empty if the system is not available."""
    lift: Interval | None
    """Relative change of nDCG@5 against the system `compare_to`; None for that system itself."""


def evaluate_vectors(
    item_ids: Sequence[str],
    vectors: Float[ndarray, "items dim"],
    log: InteractionLog,
    *,
    bootstrap_samples: int,
    seed: int,
) -> dict[str, Interval]:
    """`ndcg@5`, `hit@1` and `hit@3` of ranking the shown items by cosine similarity, with 95 % intervals.

    Row i of `vectors` is the L2-normalised vector of `item_ids[i]`. Shown items without a vector are ranked
    last; if the query item has no vector, the order of its impression is random. `seed` determines the order
    of ties and the bootstrap samples.
    Raises: ValueError if `item_ids` and `vectors` differ in length; InputError if no query item of the log
        has a vector.
    """
    scores = cosine_scores(item_ids, vectors, log)
    if np.isnan(scores).all():
        raise InputError(
            f"the interaction log: none of {len(log.query_ids)} impressions has vectors for its query and a "
            "shown item; embed the items that the log names"
        )
    return mean_intervals(per_query_metrics(scores, log, seed=seed), samples=bootstrap_samples, seed=seed)


def evaluate_systems(
    systems: Sequence[SystemScores],
    log: InteractionLog,
    *,
    bootstrap_samples: int,
    seed: int,
    compare_to: str = ZERO_SHOT,
) -> list[SystemResult]:
    """The metrics of every system, in the same order, and the lift of each against `compare_to`.

    Without a system `compare_to` that is available there are no lifts.
    """
    metrics = {
        system.name: per_query_metrics(system.scores, log, seed=seed)
        for system in systems
        if system.scores is not None
    }
    lifts = paired_lifts(
        {name: per_query[NDCG_AT_5] for name, per_query in metrics.items()},
        compare_to,
        samples=bootstrap_samples,
        seed=seed,
    )
    results = []
    for system in systems:
        if system.name not in metrics:
            results.append(SystemResult(system.name, False, system.reason, {}, None))
            continue
        intervals = mean_intervals(metrics[system.name], samples=bootstrap_samples, seed=seed)
        results.append(SystemResult(system.name, True, None, intervals, lifts.get(system.name)))
    return results


def paired_lifts(
    per_query: Mapping[str, PerQuery], compare_to: str, *, samples: int, seed: int
) -> dict[str, Interval]:
    """System -> relative change of its metric against `compare_to`; no entry for that system itself.

    Entry i of every array belongs to query i. Empty if `compare_to` is not among the systems.
    """
    reference = per_query.get(compare_to)
    if reference is None:
        return {}
    return {
        name: bootstrap_lift(values, reference, samples=samples, seed=seed)
        for name, values in per_query.items()
        if name != compare_to
    }


def cosine_scores(
    item_ids: Sequence[str],
    vectors: Float[ndarray, "items dim"],
    log: InteractionLog,
    score: Score = inner_products,
) -> Float[ndarray, "queries max_shown"]:
    """Cosine similarity of the query item and each shown item; NaN in padding and where a vector is missing.

    Rows of `vectors` are L2-normalised and belong to `item_ids`. `score` compares them as an index does.
    Raises: ValueError if the two differ in length.
    """
    if len(item_ids) != len(vectors):
        raise ValueError(f"{len(item_ids)} item ids, but {len(vectors)} vectors")
    item_id_to_row = {item_id: row for row, item_id in enumerate(item_ids)}
    scores = np.full(log.shown.shape, np.nan)
    for number, (query_id, shown_ids) in enumerate(zip(log.query_ids, log.shown_ids, strict=True)):
        query_row = item_id_to_row.get(query_id)
        if query_row is not None:
            rows = np.array([item_id_to_row.get(item_id, -1) for item_id in shown_ids])
            [cosines] = score(vectors[[query_row]], vectors[rows])
            scores[number, : len(shown_ids)] = np.where(rows < 0, np.nan, cosines)
    return scores


def per_query_metrics(
    scores: Float[ndarray, "queries max_shown"], log: InteractionLog, *, seed: int
) -> dict[str, PerQuery]:
    """nDCG@5, hit@1 and hit@3 of each impression when its items are ranked by descending score."""
    ranked = rank_by(scores, log.tapped, log.shown, seed=seed)
    return {NDCG_AT_5: ndcg_at(5, ranked), HIT_AT_1: hit_at(1, ranked), HIT_AT_3: hit_at(3, ranked)}


def mean_intervals(per_query: Mapping[str, PerQuery], *, samples: int, seed: int) -> dict[str, Interval]:
    """The mean of each metric over queries with its bootstrap interval."""
    return {name: bootstrap_mean(values, samples=samples, seed=seed) for name, values in per_query.items()}
