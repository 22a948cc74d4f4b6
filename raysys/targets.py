"""What a configuration asks for: the target of every artifact, and from which others it is made.

A target's config holds only what decides its content: how many workers read or how often a line is
logged does not make another artifact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from raysys import storage
from raysys.artifacts import (
    CatalogManifest,
    EmbeddingSetManifest,
    EncoderBundleManifest,
    IndexBundleManifest,
    InputEntry,
    ReportManifest,
    ShardSetManifest,
    Target,
    as_input,
    canonical_json,
)
from raysys.config import Config
from raysys.config.schema import Columns, Section, SplitName, TrainConfig
from raysys.errors import InputError
from raysys.places import Places

# What lets a run be longer, faster or safer, and its steps the same.
_OF_NO_STEP = (
    "activation_checkpointing",
    "changed",
    "checkpoint_every_epochs",
    "checkpoint_every_minutes",
    "collective_timeout_s",
    "compile",
    "epochs",
    "log_every_steps",
    "loss_exchange",
    "loss_tile_rows",
    "max_failures",
    "micro_batch_size",
    "min_workers",
    "on_out_of_memory",
    "parallel",
    "recipe",
    "robust",
    "use_gpu",
    "validation",
    "workers",
)
_OF_CHOICE = ("items", "score", "patience")  # in train.validation: which checkpoint is the best
# What `train.robust` says about the way back to the start: training itself does not depend on it.
_OF_THE_SWEEP = ("interpolation_steps", "guard", "guard_items", "max_guard_drop")


@dataclass(frozen=True)
class TrainingRun:
    """A training run: what decides its every step, and the folder of its state.

    Its length is no part of it, nor is what machines it runs on: a run with the same name and recipe
    continues after a crash, on other workers, and when it is made longer.
    """

    home: str
    """What holds all runs of this name."""
    said: Mapping[str, Any]
    """The part of the configuration that counts, under the names of its keys."""
    inputs: Mapping[str, InputEntry]

    @property
    def recipe(self) -> str:
        """The hash of what decides the run; URIs do not count, contents do."""
        contents = {name: entry.fingerprint for name, entry in self.inputs.items()}
        wanted = canonical_json({"kind": "TrainingRun", "config": self.said, "inputs": contents})
        return storage.sha256_of_bytes(wanted.encode())

    @property
    def uri(self) -> str:
        """Its folder: one a recipe, so that a changed configuration continues nobody's run."""
        return storage.join(self.home, self.recipe[:12])


def places_of(config: Config) -> Places:
    """Where this configuration's artifacts stand."""
    return Places(storage.absolute(config.root), config.name)


def drawn_catalog(config: Config) -> Target:
    """The drawn catalogue."""
    return Target(places_of(config).catalog, CatalogManifest, _said(config.catalog), {})


def shard_set(config: Config, split: str, columns: Columns, catalog: InputEntry) -> Target:
    """The ShardSet of a split, of a catalogue with this fingerprint."""
    said = {
        "split": split,
        "pack": _said(config.pack, without=("max_bad_fraction", "parent")),
        "columns": _said(columns),
    }
    return Target(
        places_of(config).shards(split),
        ShardSetManifest,
        said,
        {"catalog": catalog, **parent_shards(config)},
    )


def parent_shards(config: Config) -> dict[str, InputEntry]:
    """The ShardSets that a pack adds to: all splits, since an item may change from one to another.

    Raises: MissingError if they are not there, InputError if they are the very ones to be made.
    """
    parent = config.pack.parent
    if parent is None:
        return {}
    if storage.absolute(parent) == places_of(config).packed:
        raise InputError(
            f"pack.parent: {parent} is where this pack goes; set root to another folder, and pack again"
        )
    splits = get_args(SplitName)
    return {
        f"parent/{split}": as_input(storage.join(storage.absolute(parent), split), ShardSetManifest)
        for split in splits
    }


def start_encoder(config: Config) -> Target:
    """The checkpoint that training starts from; `tiny` is made from the training titles."""
    places = places_of(config)
    said = _said(config.encoder, without=() if config.encoder.start == "tiny" else ("tiny", "seed"))
    inputs = (
        {"shards": as_input(places.shards("train"), ShardSetManifest)}
        if config.encoder.start == "tiny"
        else {}
    )
    return Target(places.start_encoder, EncoderBundleManifest, said, inputs)


def training_run(config: Config) -> TrainingRun:
    """The run that trains what this configuration asks for, be it long or short."""
    places = places_of(config)
    said = {
        "train": {**_said(config.train, without=_OF_NO_STEP), **_held_back(config.train)},
        "stream": {
            "shuffle_window_shards": config.stream.shuffle_window_shards,
            "scaled_decoding": config.stream.scaled_decoding,
        },
        "encoder": {"seed": config.encoder.seed},
    }
    inputs = {
        "shards": as_input(places.shards("train"), ShardSetManifest),
        "start": as_input(places.start_encoder, EncoderBundleManifest),
    }
    return TrainingRun(places.runs, said, inputs)


def tuned_encoder(config: Config) -> Target:
    """The fine-tuned checkpoint, what a run came to: delivered, or what is delivered is made from it."""
    run, section = training_run(config), config.train
    train = {
        **run.said["train"],
        "epochs": section.epochs,
        "validation": section.validation.model_dump(mode="json", include=set(_OF_CHOICE)),
    }
    said = {**run.said, "train": train}
    places = places_of(config)
    uri = places.tuned_encoder if is_interpolated(config) else places.encoder
    return Target(uri, EncoderBundleManifest, said, run.inputs)


def encoder(config: Config) -> Target:
    """The checkpoint that training delivers: the fine-tuned one, or the best of the way back to the start."""
    if not is_interpolated(config):
        return tuned_encoder(config)
    places, robust = places_of(config), config.train.robust
    said: dict[str, Any] = {
        "robust": {name: value for name, value in _said(robust).items() if name in _OF_THE_SWEEP},
        "validation": _said(config.train.validation, without=("patience", "num_gpus", "timeout_s")),
    }
    if config.train.validation.score in (None, "ndcg@5"):
        said["log"] = _said(config.evaluate.log)
    inputs = {
        "start": as_input(places.start_encoder, EncoderBundleManifest),
        "tuned": as_input(places.tuned_encoder, EncoderBundleManifest),
        "shards": as_input(places.shards("val"), ShardSetManifest),
    }
    if robust.guard != "drawn":
        inputs["guard"] = as_input(robust.guard, ShardSetManifest)
    return Target(places.encoder, EncoderBundleManifest, said, inputs)


def is_interpolated(config: Config) -> bool:
    """Whether what is delivered lies between the start and the fine-tuned checkpoint."""
    return config.train.recipe == "wise_ft"


def embeddings(config: Config) -> Target:
    """The catalogue in the delivered space."""
    places = places_of(config)
    said = {"splits": list(config.embed.splits), "precision": config.embed.precision}
    inputs = {
        f"shards/{split}": as_input(places.shards(split), ShardSetManifest) for split in config.embed.splits
    }
    inputs["encoder"] = as_input(places.encoder, EncoderBundleManifest)
    return Target(places.embeddings, EmbeddingSetManifest, said, inputs)


def projected_encoder(config: Config) -> Target:
    """The delivered checkpoint with a projection fitted to its embeddings of the training split."""
    places = places_of(config)
    inputs = {
        "encoder": as_input(places.encoder, EncoderBundleManifest),
        "embeddings": as_input(places.embeddings, EmbeddingSetManifest),
    }
    return Target(places.projected_encoder, EncoderBundleManifest, _said(config.projection), inputs)


def projected_embeddings(config: Config) -> Target:
    """The catalogue in the projected space."""
    places = places_of(config)
    inputs = {
        "embeddings": as_input(places.embeddings, EmbeddingSetManifest),
        "encoder": as_input(places.projected_encoder, EncoderBundleManifest),
    }
    return Target(places.projected_embeddings, EmbeddingSetManifest, {}, inputs)


def index(config: Config) -> Target:
    """The index over the space that is served."""
    inputs = {"embeddings": as_input(served_embeddings(config), EmbeddingSetManifest)}
    return Target(places_of(config).index, IndexBundleManifest, _said(config.index), inputs)


def report(config: Config) -> Target:
    """The report on everything above."""
    places = places_of(config)
    inputs = {
        f"shards/{split}": as_input(places.shards(split), ShardSetManifest) for split in ("val", "test")
    }
    inputs["start"] = as_input(places.start_encoder, EncoderBundleManifest)
    if is_interpolated(config):
        inputs["tuned"] = as_input(places.tuned_encoder, EncoderBundleManifest)
    inputs["embeddings"] = as_input(places.embeddings, EmbeddingSetManifest)
    inputs["index"] = as_input(places.index, IndexBundleManifest)
    return Target(places.report, ReportManifest, _said(config.evaluate), inputs)


def served_encoder(config: Config) -> str:
    """The bundle whose space is searched."""
    places = places_of(config)
    return places.projected_encoder if config.projection.dimensions else places.encoder


def served_embeddings(config: Config) -> str:
    """The EmbeddingSet that is indexed."""
    places = places_of(config)
    return places.projected_embeddings if config.projection.dimensions else places.embeddings


def _held_back(section: TrainConfig) -> dict[str, Any]:
    """What the recipe makes of a run's steps: `wise_ft` trains as `full` does."""
    if section.recipe in ("full", "wise_ft"):
        return {"recipe": "full"}
    key = {"distil": "distil_weight", "top_layers": "top_layers"}[section.recipe]
    return {"recipe": section.recipe, "robust": section.robust.model_dump(mode="json", include={key})}


def _said(section: Section, without: tuple[str, ...] = ()) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude=set(without))
