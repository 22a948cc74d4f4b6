"""What is measured of a model while it is trained, on the validation split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raysys.config.schema import ValidationConfig
from raysys.encoder.preprocess import ImagePreprocessing, TextPreprocessing
from raysys.evaluate.retrieval import retrieval
from raysys.stream.shard import ShardRef

SCORE = "score"


@dataclass(frozen=True)
class Validation:
    """A measurement that can be sent to where it is made; `measure(model)` makes it."""

    tokenizer_uri: str
    shards: list[ShardRef]
    image: ImagePreprocessing
    text: TextPreprocessing
    section: ValidationConfig

    def measure(self, model: Any) -> dict[str, float]:
        """R@1, R@5, R@10 and `score`, the one that decides which checkpoint is the best."""
        found = retrieval(model, self.tokenizer_uri, self.shards, self.image, self.text, self.section.items)
        return {**found, SCORE: found[self.section.score or "r@5"]} if found else {}
