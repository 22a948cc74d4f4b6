"""The retention check: how well a fine-tuned model still matches pairs from outside its training domain."""

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
_SEED = 20_210  # different from any catalogue's, so that no item of the check was trained on


@dataclass(frozen=True)
class RetentionCheck:
    """R@5 from photo to title on pairs that no training has used."""

    encoder_uri: str
    """The bundle with the preprocessing of photos and titles."""
    source: str
    """`drawn`, or the URI of a ShardSet."""
    num_items: int

    def measure(self, model: Any) -> float:
        """R@5 of a model on its device, from 0 to 1."""
        photos, titles = retention_pairs(self.source, self.num_items)
        return recalls(embed_pairs(model, self.encoder_uri, photos, titles))["r@5"]


def make_retention_check(encoder_uri: str, section: RobustConfig) -> RetentionCheck:
    """The check that `train.robust` configures.

    Raises: MissingError if its ShardSet does not exist.
    """
    if section.retention_set != DRAWN:
        shards_of(section.retention_set)
    return RetentionCheck(encoder_uri, section.retention_set, section.retention_items)


@functools.lru_cache(maxsize=1)  # one process measures several models
def retention_pairs(source: str, num_items: int) -> tuple[list[bytes], list[str]]:
    """Photos and titles; the same pairs on every call."""
    if source == DRAWN:
        drawn = generate_items(num_items, _SEED)
        return [render_item(item) for item in drawn], [item.title for item in drawn]
    items = read_items(shards_of(source), max_items=num_items)
    return items.photos, items.titles
