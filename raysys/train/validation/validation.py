"""What is measured of a model while it is trained: retrieval and, where there is one, a log.

Both on the same items of the validation split. The driver decides which, once, before anything starts;
the measurement can then be sent to where it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float32
from numpy import ndarray

from raysys.config.schema import EvaluateConfig, RecordedLog, ValidationConfig
from raysys.errors import InputError
from raysys.evaluate import metrics
from raysys.evaluate.items import EvaluationItems, read_items
from raysys.evaluate.logs import InteractionLog, read_log
from raysys.evaluate.reranking import cosine_scores
from raysys.evaluate.retrieval import embed_pairs, recalls
from raysys.evaluate.simulation import simulate_log_for_items
from raysys.shards.reader import ShardRef, read_shard
from raysys.tracking import logs

SCORE, NDCG, RECALL = "score", "ndcg@5", "r@5"
_MIN_IMPRESSIONS = 20  # with fewer, chance decides which checkpoint is the best


@dataclass(frozen=True)
class Validation:
    """A measurement that can be sent to where it is made; `measure(model)` makes it."""

    encoder_uri: str
    """The bundle that says how photos and titles are prepared: the start's, which need not be there yet."""
    shards: list[ShardRef]
    item_ids: list[str]
    """The pairs that are measured, among them all items of the log; none: nothing is measured."""
    log: InteractionLog | None
    score: str
    """The figure that decides which checkpoint is the best."""
    seed: int
    """Breaks ties between shown items."""
    device: str

    def measure(self, model: Any) -> dict[str, float]:
        """R@1, R@5, R@10, with a log nDCG@5, and again as `score` the one that decides.

        The model is moved to the device of the measurement.
        """
        if not self.item_ids:
            return {}
        items = read_items(self.shards, set(self.item_ids), max_items=len(self.item_ids))
        pairs = embed_pairs(model.to(self.device), self.encoder_uri, items.photos, items.titles)
        figures = recalls(pairs)
        if self.log is not None:
            figures[NDCG] = _mean_ndcg(pairs.photos.numpy(), items, self.log, self.seed)
        return {**figures, SCORE: figures[self.score]}


def make_validation(
    encoder_uri: str,
    shards: Sequence[ShardRef],
    section: ValidationConfig,
    judged: EvaluateConfig,
    latent_uri: str | None,
) -> Validation:
    """What is to be measured on a validation split; without a log it says why, and goes on.

    Raises: InputError if `train.validation.score` asks for a log that is not to be had.
    """
    item_ids: list[str] = []
    log = None
    try:
        if not section.max_items or not any(shard.num_items for shard in shards):
            raise InputError("there are no validation pairs")
        first = read_items(shards, max_items=section.max_items)
        item_ids = first.item_ids
        log = _log_among(shards, first, section.max_items, judged, latent_uri)
        item_ids = list(dict.fromkeys([*sorted(log.item_ids), *item_ids]))[: section.max_items]
    except InputError as error:
        if section.score == NDCG:
            raise InputError(
                f"train.validation.score: {NDCG} needs a log of validation items ({error}); set {RECALL}"
            ) from error
        if item_ids:
            logs.log.info("    train  measured by retrieval alone: %s", error)
    score = section.score or (NDCG if log else RECALL)
    device = "cuda" if section.num_gpus else "cpu"
    return Validation(encoder_uri, list(shards), item_ids, log, score, judged.seed, device)


def _log_among(
    shards: Sequence[ShardRef],
    first: EvaluationItems,
    max_items: int,
    judged: EvaluateConfig,
    latent_uri: str | None,
) -> InteractionLog:
    """A log of at most `max_items` validation items: of the recorded one what fits, or drawn on the first.

    Raises: InputError if there is none, or too little of it.
    """
    if not isinstance(judged.log, RecordedLog):
        return read_log(simulate_log_for_items(first, latent_uri, judged.log))
    recorded = read_log(judged.log.path)
    split = {stored.item.item_id for shard in shards for stored in read_shard(shard)}
    log = recorded.restrict_to(split, max_items=max_items)
    if len(log.query_ids) < _MIN_IMPRESSIONS:
        raise InputError(
            f"{judged.log.path}: {len(log.query_ids)} of its {len(recorded.query_ids)} impressions show "
            f"{max_items} or fewer validation items alone, {_MIN_IMPRESSIONS} are needed; "
            "raise train.validation.max_items, or log more"
        )
    return log


def _mean_ndcg(
    vectors: Float32[ndarray, "n d"], items: EvaluationItems, log: InteractionLog, seed: int
) -> float:
    scores = cosine_scores(items.item_ids, vectors, log)
    return float(metrics.ndcg_at(5, metrics.rank_by(scores, log.tapped, log.shown, seed=seed)).mean())
