"""Validation in training: retrieval, nDCG if there is an interaction log, and when they end a run early.

Both metrics use the same items. The driver chooses them once, before training starts, and sends a
`Validation` to the workers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from raysys.config.schema import EvaluateConfig, RecordedLog, ValidationConfig
from raysys.encoder.interpolation import SCORE
from raysys.errors import InputError
from raysys.evaluate import metrics
from raysys.evaluate.interaction_log import InteractionLog, read_log
from raysys.evaluate.items import EvaluationItems, read_items, usable_items
from raysys.evaluate.pairs import PackedPairs
from raysys.evaluate.reranking import cosine_scores
from raysys.evaluate.retrieval import PairEmbeddings, recalls
from raysys.evaluate.simulation import simulate_log_for_items
from raysys.shards.reader import ShardRef
from raysys.tracking import logs
from raysys.tracking.metrics_log import validation_scores

NDCG, RECALL = "ndcg@5", "r@5"
_MIN_IMPRESSIONS = 20  # with fewer, the best checkpoint is a matter of chance


@dataclass(frozen=True)
class Validation:
    """The items, the log and the settings of the metrics."""

    pairs: PackedPairs
    item_ids: list[str]
    """Of the pairs, among them all items of the log; empty: there are no metrics."""
    log: InteractionLog | None
    score: str
    """The metric that decides which checkpoint is the best."""
    seed: int
    """Breaks ties between shown items."""

    def metrics(self, embedded: PairEmbeddings) -> dict[str, float]:
        """R@1, R@5, R@10, with a log nDCG@5, and the deciding one again as `score`."""
        values = recalls(embedded)
        if self.log is not None:
            scores = cosine_scores(self.item_ids, embedded.photos.numpy(), self.log)
            ranks = metrics.rank_by(scores, self.log.tapped, self.log.shown, seed=self.seed)
            values[NDCG] = float(metrics.ndcg_at(5, ranks).mean())
        return {**values, SCORE: values[self.score]}


def has_stopped_early(validations: Iterable[Mapping[str, float]], step: int, patience: int | None) -> bool:
    """Whether a run whose last checkpoint is that of `step` is finished, however many steps are left.

    It is if none of the last `patience` checkpoints (`train.validation.patience`; None: never) scored higher
    than the best one before them. `validations` are in order. Ignored are the start, because scores may fall
    below it and then rise, and those after `step`, whose checkpoints were not saved before a kill.
    """
    scores = [score for scored, score in validation_scores(validations).items() if 0 < scored <= step]
    if patience is None or len(scores) <= patience:
        return False
    return max(scores[-patience:]) <= max(scores[:-patience])


def make_validation(
    shards: Sequence[ShardRef],
    section: ValidationConfig,
    evaluate: EvaluateConfig,
    latent_uri: str | None,
) -> Validation:
    """The validation of a configuration; without a log it uses retrieval alone and logs the reason.

    Raises: InputError if `train.validation.score` needs a log and there is none.
    """
    item_id_to_position: dict[str, int] = {}
    log = None
    try:
        if not section.max_items or not any(shard.num_items for shard in shards):
            raise InputError("there are no validation pairs")
        first = read_items(shards, max_items=section.max_items)
        item_id_to_position = dict(zip(first.item_ids, first.positions, strict=True))
        log, positions = _validation_log(shards, first, section.max_items, evaluate, latent_uri)
        logged = {item_id: positions[item_id] for item_id in sorted(log.item_ids)}
        item_id_to_position = dict(
            itertools.islice({**logged, **item_id_to_position}.items(), section.max_items)
        )
    except InputError as error:
        if section.score == NDCG:
            raise InputError(
                f"train.validation.score: {NDCG} needs a log of validation items ({error}); "
                f"set train.validation.score={RECALL}"
            ) from error
        if item_id_to_position:
            logs.log.info("    train  validation uses retrieval metrics only: %s", error)
    score = section.score or (NDCG if log else RECALL)
    item_ids = sorted(item_id_to_position, key=item_id_to_position.__getitem__)
    pairs = PackedPairs(list(shards), [item_id_to_position[item_id] for item_id in item_ids])
    return Validation(pairs, item_ids, log, score, evaluate.seed)


def _validation_log(
    shards: Sequence[ShardRef],
    first: EvaluationItems,
    max_items: int,
    evaluate: EvaluateConfig,
    latent_uri: str | None,
) -> tuple[InteractionLog, dict[str, int]]:
    """A log of at most `max_items` validation items, part of the recorded log or simulated on `first`.

    Also the position of each of its items, counted over all shards.

    Raises: InputError if there is none, or it has too few impressions.
    """
    if not isinstance(evaluate.log, RecordedLog):
        positions = dict(zip(first.item_ids, first.positions, strict=True))
        return read_log(simulate_log_for_items(first, latent_uri, evaluate.log)), positions
    recorded = read_log(evaluate.log.path)
    positions = {usable.item.item_id: usable.position for usable in usable_items(shards)}
    log = recorded.restrict_to(positions.keys(), max_items=max_items)
    if len(log.query_ids) < _MIN_IMPRESSIONS:
        raise InputError(
            f"{evaluate.log.path}: {len(log.query_ids)} of its {len(recorded.query_ids)} impressions "
            f"consist of validation items (at most {max_items} in all), {_MIN_IMPRESSIONS} are needed; "
            "raise train.validation.max_items, or record a longer log"
        )
    return log, positions
