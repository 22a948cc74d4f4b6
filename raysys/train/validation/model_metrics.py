"""Metrics of a model on the validation split: retrieval, and nDCG on an interaction log if there is one.

Both use the same items. The driver chooses them once, before training starts; a `Validation` can then be sent
to a Ray task, which computes the metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float32
from numpy import ndarray

from raysys.config.schema import EvaluateConfig, RecordedLog, ValidationConfig
from raysys.encoder.interpolation import SCORE
from raysys.errors import InputError
from raysys.evaluate import metrics
from raysys.evaluate.items import EvaluationItems, read_items, usable_items
from raysys.evaluate.logs import InteractionLog, read_log
from raysys.evaluate.reranking import cosine_scores
from raysys.evaluate.retrieval import embed_pairs, recalls
from raysys.evaluate.simulation import simulate_log_for_items
from raysys.shards.reader import ShardRef
from raysys.tracking import logs

NDCG, RECALL = "ndcg@5", "r@5"
_MIN_IMPRESSIONS = 20  # with fewer, the best checkpoint is a matter of chance


@dataclass(frozen=True)
class Validation:
    """The items, the log and the settings of the metrics; `measure(model)` computes them."""

    encoder_uri: str
    """The start bundle, with the preprocessing of photos and titles; it may be published later."""
    shards: list[ShardRef]
    item_ids: list[str]
    """The pairs that are used, among them all items of the log; empty: there are no metrics."""
    log: InteractionLog | None
    score: str
    """The metric that decides which checkpoint is the best."""
    seed: int
    """Breaks ties between shown items."""
    device: str

    def measure(self, model: Any) -> dict[str, float]:
        """R@1, R@5, R@10, with a log nDCG@5, and the deciding one again as `score`.

        The model is moved to `device`.
        """
        if not self.item_ids:
            return {}
        items = read_items(self.shards, set(self.item_ids), max_items=len(self.item_ids))
        pairs = embed_pairs(model.to(self.device), self.encoder_uri, items.photos, items.titles)
        values = recalls(pairs)
        if self.log is not None:
            values[NDCG] = _mean_ndcg(pairs.photos.numpy(), items, self.log, self.seed)
        return {**values, SCORE: values[self.score]}


def make_validation(
    encoder_uri: str,
    shards: Sequence[ShardRef],
    section: ValidationConfig,
    evaluate: EvaluateConfig,
    latent_uri: str | None,
) -> Validation:
    """The validation of a configuration; without a log it uses retrieval alone and logs the reason.

    Raises: InputError if `train.validation.score` needs a log and there is none.
    """
    item_ids: list[str] = []
    log = None
    try:
        if not section.max_items or not any(shard.num_items for shard in shards):
            raise InputError("there are no validation pairs")
        first = read_items(shards, max_items=section.max_items)
        item_ids = first.item_ids
        log = _validation_log(shards, first, section.max_items, evaluate, latent_uri)
        item_ids = list(dict.fromkeys([*sorted(log.item_ids), *item_ids]))[: section.max_items]
    except InputError as error:
        if section.score == NDCG:
            raise InputError(
                f"train.validation.score: {NDCG} needs a log of validation items ({error}); "
                f"set train.validation.score={RECALL}"
            ) from error
        if item_ids:
            logs.log.info("    train  validation uses retrieval metrics only: %s", error)
    score = section.score or (NDCG if log else RECALL)
    device = "cuda" if section.num_gpus else "cpu"
    return Validation(encoder_uri, list(shards), item_ids, log, score, evaluate.seed, device)


def _validation_log(
    shards: Sequence[ShardRef],
    first: EvaluationItems,
    max_items: int,
    evaluate: EvaluateConfig,
    latent_uri: str | None,
) -> InteractionLog:
    """A log of at most `max_items` validation items: part of the recorded log, or simulated on `first`.

    Raises: InputError if there is none, or it has too few impressions.
    """
    if not isinstance(evaluate.log, RecordedLog):
        return read_log(simulate_log_for_items(first, latent_uri, evaluate.log))
    recorded = read_log(evaluate.log.path)
    item_ids = {item.item_id for _, item in usable_items(shards)}
    log = recorded.restrict_to(item_ids, max_items=max_items)
    if len(log.query_ids) < _MIN_IMPRESSIONS:
        raise InputError(
            f"{evaluate.log.path}: {len(log.query_ids)} of its {len(recorded.query_ids)} impressions "
            f"consist of validation items (at most {max_items} in all), {_MIN_IMPRESSIONS} are needed; "
            "raise train.validation.max_items, or record a longer log"
        )
    return log


def _mean_ndcg(
    vectors: Float32[ndarray, "n d"], items: EvaluationItems, log: InteractionLog, seed: int
) -> float:
    scores = cosine_scores(items.item_ids, vectors, log)
    return float(metrics.ndcg_at(5, metrics.rank_by(scores, log.tapped, log.shown, seed=seed)).mean())
