"""All that a training worker is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raysys.config.schema import TrackingConfig, TrainConfig
from raysys.encoder.preprocess import ImagePreprocessing, TextPreprocessing
from raysys.stream.shard import ShardRef
from raysys.train.figures.telling import TrackedRun


@dataclass(frozen=True)
class TrainJob:
    """A run's settings and places; a worker opens everything else by URI."""

    run_name: str
    run_uri: str
    recipe: str  # of the run
    start_uri: str
    image: ImagePreprocessing
    text: TextPreprocessing
    section: TrainConfig
    tracking: TrackingConfig
    config: dict[str, Any]  # the resolved configuration and what it trains on, for W&B
    shards: list[ShardRef]
    is_validated: bool  # whether checkpoints are measured
    score: str  # the figure that decides which of them is the best
    max_bad_fraction: float
    rows_per_block: int  # of the stream; decides which worker gets which samples of a batch
    seed: int  # of the order of the samples, and of all that is drawn
    num_steps: int
    checkpoint_steps: int  # a checkpoint every so many steps, and after the last

    @property
    def tracked(self) -> TrackedRun:
        """The run as W&B knows it."""
        return TrackedRun(self.run_name, self.run_uri, self.config, self.tracking)

    def is_planned(self, step: int) -> bool:
        """Whether the plan has a checkpoint after this step."""
        return step % self.checkpoint_steps == 0 or step == self.num_steps

    def is_measured(self, step: int) -> bool:
        """Whether a checkpoint after this step is measured."""
        return self.is_validated and self.is_planned(step)

    @property
    def num_items(self) -> int:
        """Pairs in an epoch."""
        return sum(shard.num_items for shard in self.shards)
