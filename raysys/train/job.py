"""The settings of a run that every training worker receives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from raysys.artifacts import specs
from raysys.artifacts.specs import TrainingRun
from raysys.config import Config
from raysys.config.schema import TrackingConfig, TrainConfig
from raysys.encoder.bundle import preprocessing_of
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.text import TextPreprocessing
from raysys.errors import InputError
from raysys.evaluate.pairs import PairSource
from raysys.evaluate.validation import Validation
from raysys.shards.reader import ShardRef, shards_of
from raysys.stream.blocks import rows_per_block
from raysys.stream.teacher import TeacherVectors
from raysys.tracking.wandb import TrackedRun


@dataclass(frozen=True)
class Sweep:
    """How the points between the start and the fine-tuned weights are measured; see `wise_ft.py`."""

    num_points: int
    retention: PairSource
    spec_hash: str
    """Of the settings and inputs that determine the metrics, but for the fine-tuned weights."""


COORDINATORS = "raysys"  # the Ray namespace of the actors that coordinate runs


@dataclass(frozen=True)
class TrainJob:
    """A run's settings and URIs. Workers load models, photos and checkpoints from the URIs."""

    run_name: str
    run_uri: str
    spec_hash: str  # of the run
    start_uri: str
    image: ImagePreprocessing
    text: TextPreprocessing
    section: TrainConfig
    tracking: TrackingConfig
    config: dict[str, Any]  # the resolved configuration and its inputs, for W&B
    shards: list[ShardRef]
    validation: Validation  # of checkpoints
    sweep: Sweep | None  # with `train.method: wise_ft`
    max_bad_fraction: float
    rows_per_block: int  # of the stream; determines how a batch is split over the workers
    seed: int  # of the sample order and all random numbers
    num_steps: int
    checkpoint_steps: int  # steps between checkpoints; the last step also has one
    teacher: TeacherVectors | None = None  # with `train.teacher`

    @property
    def tracked(self) -> TrackedRun:
        """The run's identity and settings for W&B."""
        return TrackedRun(self.run_name, self.run_uri, self.config, self.tracking)

    @property
    def coordinator_name(self) -> str:
        """The name of the run's `RunCoordinator` in the namespace `COORDINATORS`."""
        return f"train {self.run_uri}"

    def is_checkpoint_step(self, step: int) -> bool:
        """Whether a checkpoint is scheduled after this step."""
        return step % self.checkpoint_steps == 0 or step == self.num_steps

    def is_validated_step(self, step: int) -> bool:
        """Whether a checkpoint after this step is validated."""
        return bool(self.validation.item_ids) and self.is_checkpoint_step(step)

    @property
    def num_items(self) -> int:
        """Image-title pairs in an epoch."""
        return sum(shard.num_items for shard in self.shards)


def make_job(config: Config, run: TrainingRun, *, validation: Validation, sweep: Sweep | None) -> TrainJob:
    """The job of a run.

    Raises: InputError if the train split has fewer items than a batch.
    """
    layout = specs.layout_of(config)
    image, text = preprocessing_of(layout.start_encoder)
    shards = shards_of(layout.shards("train"))
    num_steps, checkpoint_steps = run_schedule(sum(shard.num_items for shard in shards), config.train)
    return TrainJob(
        run_name=config.name,
        run_uri=run.uri,
        spec_hash=run.spec_hash,
        start_uri=layout.start_encoder,
        image=image,
        text=text,
        section=config.train,
        tracking=config.tracking,
        config={
            **config.model_dump(mode="json"),
            "lineage": {name: entry.model_dump() for name, entry in run.inputs.items()},
        },
        shards=shards,
        validation=validation,
        sweep=sweep,
        max_bad_fraction=config.stream.max_bad_fraction,
        rows_per_block=rows_per_block(
            shards,
            config.stream,
            batch_size=config.train.batch_size,
            workers=config.train.workers,
            is_elastic=config.train.is_elastic,
        ),
        seed=config.encoder.seed,
        num_steps=num_steps,
        checkpoint_steps=checkpoint_steps,
    )


def run_schedule(num_items: int, section: TrainConfig) -> tuple[int, int]:
    """Steps of a run, and from a checkpoint to the next: complete global batches of `num_items` an epoch.

    Raises: InputError if there are fewer items than a batch.
    """
    if num_items < section.batch_size:
        raise InputError(
            f"train.batch_size: {section.batch_size} pairs a step, "
            f"but the train split has {num_items} items; lower it"
        )
    num_steps = max(1, math.floor(section.epochs * num_items / section.batch_size))
    every = max(1, round(section.checkpoint_every_epochs * num_items / section.batch_size))
    return num_steps, every
