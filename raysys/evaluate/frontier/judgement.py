"""What judges the quality of vectors: re-ranking on the interaction log, and attribute precision.

Both are the protocols of the report, with the scores of an index instead of exact ones. A protocol that the
catalogue has no data for is absent, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from jaxtyping import Float32
from numpy import ndarray

from raysys.config.schema import AttributePrecisionConfig, EvaluateConfig, RecordedLog
from raysys.errors import InputError
from raysys.evaluate.attribute_precision import ALL, attribute_precision, chance_precision
from raysys.evaluate.interaction_log import InteractionLog, read_log
from raysys.evaluate.items import EvaluationItems, known_attributes, read_items, splits_to_read
from raysys.evaluate.metrics import PerQuery, Score
from raysys.evaluate.reranking import NDCG_AT_5, cosine_scores, per_query_metrics
from raysys.evaluate.simulation import simulate_log_for_items
from raysys.shards.reader import ShardRef, shards_of


@dataclass(frozen=True)
class Judgement:
    """The items of the evaluation, the log and the protocol; None for one that is absent."""

    items: EvaluationItems
    attributes: Mapping[str, ndarray]
    """Name -> values of dtype object, in the order of `items`."""
    log: InteractionLog | None
    protocol: AttributePrecisionConfig | None
    absent: Mapping[str, str]
    """Metric -> why it is not measured."""
    seed: int
    """Decides the order of ties."""

    def restrict_to(self, item_ids: Iterable[str]) -> Judgement:
        """The judgement on the items that have a vector; the log keeps the others, which rank last."""
        known = set(item_ids)
        rows = [row for row, item_id in enumerate(self.items.item_ids) if item_id in known]
        absent, log, protocol = dict(self.absent), self.log, self.protocol
        items = self.items.select_rows(rows)
        attributes = {name: values[rows] for name, values in self.attributes.items()}
        if log is not None and known.isdisjoint(log.query_ids):
            absent[NDCG_AT_5] = "no query item of the log has a vector; check embed.splits"
            log = None
        if protocol is not None:
            try:
                chance_precision(attributes, items.splits, protocol, items.groups)
            except InputError as error:
                absent[_precision_name(protocol)] = str(error)
                protocol = None
        return replace(self, items=items, attributes=attributes, log=log, protocol=protocol, absent=absent)

    def metrics(self, vectors: Float32[ndarray, "items dim"], score: Score) -> dict[str, PerQuery]:
        """nDCG@5 of each impression and P@k of each query; `vectors` are those of the items."""
        measured = {}
        if self.log is not None:
            scores = cosine_scores(self.items.item_ids, vectors, self.log, score)
            measured[NDCG_AT_5] = per_query_metrics(scores, self.log, seed=self.seed)[NDCG_AT_5]
        if self.protocol is not None:
            precision = attribute_precision(
                vectors, self.attributes, self.items.splits, self.protocol, self.items.groups, score
            )
            measured[_precision_name(self.protocol)] = precision[ALL]
        return measured


def read_judgement(
    shard_uris: Mapping[str, str], latent_uri: str | None, section: EvaluateConfig
) -> Judgement:
    """The items and the log as `raysys evaluate` reads them, without baselines.

    `shard_uris` are the ShardSets by split.
    Raises: InputError for a recorded log that is not usable.
    """

    def shards(splits: Iterable[str]) -> list[ShardRef]:
        return [shard for split in splits for shard in shards_of(shard_uris[split])]

    absent = {}
    log: InteractionLog | None = None
    if isinstance(section.log, RecordedLog):
        log = read_log(section.log.path)
        items = read_items(shards(shard_uris), log.item_ids)
    else:
        items = read_items(shards(splits_to_read(section)))
        try:
            log_items = items.select_splits(section.splits)
            log = read_log(simulate_log_for_items(log_items, latent_uri, section.log))
        except InputError as error:
            absent[NDCG_AT_5] = str(error)
    if section.attribute_precision is None:
        absent["p@k"] = "evaluate.attribute_precision is null"
    return Judgement(
        items=items,
        attributes=known_attributes(items, latent_uri),
        log=log,
        protocol=section.attribute_precision,
        absent=absent,
        seed=section.seed,
    )


def _precision_name(protocol: AttributePrecisionConfig) -> str:
    return f"p@{protocol.k}"
