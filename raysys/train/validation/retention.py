"""What a fine-tuned model should not forget: pairs from outside the domain that it was tuned for."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from raysys.config.schema import RobustConfig
from raysys.evaluate.items import read_items
from raysys.evaluate.retrieval import embed_pairs, recalls
from raysys.shards.reader import shards_of
from raysys.synth import generate_items, render_item

DRAWN = "drawn"
_SEED = 20_210  # not that of any catalogue: what was trained on is no guard


@dataclass(frozen=True)
class RetentionCheck:
    """R@5 from photo to title on pairs that nobody trained on; `measure(model)` measures it."""

    encoder_uri: str
    """The bundle that says how photos and titles are prepared."""
    source: str
    """`drawn`, or the URI of a ShardSet."""
    num_items: int

    def measure(self, model: Any) -> float:
        """R@5 of a model on its device, from 0 to 1."""
        photos, titles = retention_pairs(self.source, self.num_items)
        return recalls(embed_pairs(model, self.encoder_uri, photos, titles))["r@5"]


def make_retention_check(encoder_uri: str, section: RobustConfig) -> RetentionCheck:
    """The guard that `train.robust` asks for.

    Raises: MissingError if it is a ShardSet that is not there.
    """
    if section.retention_set != DRAWN:
        shards_of(section.retention_set)
    return RetentionCheck(encoder_uri, section.retention_set, section.retention_items)


@functools.lru_cache(maxsize=1)  # one process measures several models
def retention_pairs(source: str, num_items: int) -> tuple[list[bytes], list[str]]:
    """Photos and titles; the same ones on every call."""
    if source == DRAWN:
        drawn = generate_items(num_items, _SEED)
        return [render_item(item) for item in drawn], [item.title for item in drawn]
    items = read_items(shards_of(source), max_items=num_items)
    return items.photos, items.titles
