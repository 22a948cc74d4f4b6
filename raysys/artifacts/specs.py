"""What a configuration asks for: the spec of every artifact, and from which others it is made.

A spec's config holds only what decides its content: how many workers read or how often a line is
logged does not make another artifact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from raysys import storage
from raysys.artifacts import (
    ArtifactSpec,
    CatalogManifest,
    EmbeddingSetManifest,
    EncoderBundleManifest,
    IndexBundleManifest,
    InputEntry,
    ReportManifest,
    ShardSetManifest,
    as_input,
    canonical_json,
)
from raysys.artifacts.layout import LATENT, ArtifactLayout
from raysys.config import Config
from raysys.config.schema import Columns, DrawnCatalog, Section, SplitName, TrainConfig
from raysys.errors import InputError

# What lets a run be longer, faster or safer, and its steps the same.
_OF_NO_STEP = (
    "activation_checkpointing",
    "on_config_change",
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
    "method",
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

    Its length is no part of it, nor is what machines it runs on: a run with the same name and spec_hash
    continues after a crash, on other workers, and when it is made longer.
    """

    runs_uri: str
    """The folder of all runs of this name."""
    settings: Mapping[str, Any]
    """The part of the configuration that counts, under the names of its keys."""
    inputs: Mapping[str, InputEntry]

    @property
    def spec_hash(self) -> str:
        """The hash of what decides the run; URIs do not count, contents do."""
        contents = {name: entry.fingerprint for name, entry in self.inputs.items()}
        wanted = canonical_json({"kind": "TrainingRun", "config": self.settings, "inputs": contents})
        return storage.sha256_of_bytes(wanted.encode())

    @property
    def uri(self) -> str:
        """Its folder: one a spec_hash, so that a changed configuration continues nobody's run."""
        return storage.join(self.runs_uri, self.spec_hash[:12])


def layout_of(config: Config) -> ArtifactLayout:
    """Where this configuration's artifacts stand."""
    return ArtifactLayout(storage.absolute(config.root), config.name)


def drawn_catalog(config: Config) -> ArtifactSpec:
    """The drawn catalogue."""
    return ArtifactSpec(layout_of(config).catalog, CatalogManifest, _identity(config.catalog), {})


def shard_set(config: Config, split: str, columns: Columns, catalog: InputEntry) -> ArtifactSpec:
    """The ShardSet of a split, of a catalogue with this fingerprint."""
    settings = {
        "split": split,
        "pack": _identity(config.pack, without=("max_bad_fraction", "parent")),
        "columns": _identity(columns),
    }
    return ArtifactSpec(
        layout_of(config).shards(split),
        ShardSetManifest,
        settings,
        {"catalog": catalog, **parent_shards(config)},
    )


def parent_shards(config: Config) -> dict[str, InputEntry]:
    """The ShardSets that a pack adds to: all splits, since an item may change from one to another.

    Raises: MissingError if they are not there, InputError if they are the very ones to be made.
    """
    parent = config.pack.parent
    if parent is None:
        return {}
    if storage.absolute(parent) == layout_of(config).packed:
        raise InputError(
            f"pack.parent: {parent} is where this pack goes; set root to another folder, and pack again"
        )
    splits = get_args(SplitName)
    return {
        f"parent/{split}": as_input(storage.join(storage.absolute(parent), split), ShardSetManifest)
        for split in splits
    }


def start_encoder(config: Config) -> ArtifactSpec:
    """The checkpoint that training starts from; `tiny` is made from the training titles."""
    layout = layout_of(config)
    settings = _identity(config.encoder, without=() if config.encoder.start == "tiny" else ("tiny", "seed"))
    inputs = (
        {"shards": as_input(layout.shards("train"), ShardSetManifest)}
        if config.encoder.start == "tiny"
        else {}
    )
    return ArtifactSpec(layout.start_encoder, EncoderBundleManifest, settings, inputs)


def training_run(config: Config) -> TrainingRun:
    """The run that trains what this configuration asks for, be it long or short."""
    layout = layout_of(config)
    settings = {
        "train": {**_identity(config.train, without=_OF_NO_STEP), **_held_back(config.train)},
        "stream": {
            "shuffle_window_shards": config.stream.shuffle_window_shards,
            "scaled_decoding": config.stream.scaled_decoding,
        },
        "encoder": {"seed": config.encoder.seed},
    }
    inputs = {
        "shards": as_input(layout.shards("train"), ShardSetManifest),
        "start": as_input(layout.start_encoder, EncoderBundleManifest),
    }
    return TrainingRun(layout.runs, settings, inputs)


def tuned_encoder(config: Config) -> ArtifactSpec:
    """The fine-tuned checkpoint, what a run came to: delivered, or what is delivered is made from it."""
    run, section = training_run(config), config.train
    train = {
        **run.settings["train"],
        "epochs": section.epochs,
        "validation": section.validation.model_dump(mode="json", include=set(_OF_CHOICE)),
    }
    settings = {**run.settings, "train": train}
    layout = layout_of(config)
    uri = layout.tuned_encoder if is_interpolated(config) else layout.encoder
    return ArtifactSpec(uri, EncoderBundleManifest, settings, run.inputs)


def encoder(config: Config) -> ArtifactSpec:
    """The checkpoint that training delivers: the fine-tuned one, or the best of the way back to the start."""
    if not is_interpolated(config):
        return tuned_encoder(config)
    layout, robust = layout_of(config), config.train.robust
    settings: dict[str, Any] = {
        "robust": {name: value for name, value in _identity(robust).items() if name in _OF_THE_SWEEP},
        "validation": _identity(config.train.validation, without=("patience", "num_gpus", "timeout_s")),
    }
    if config.train.validation.score in (None, "ndcg@5"):
        settings["log"] = _identity(config.evaluate.log)
    inputs = {
        "start": as_input(layout.start_encoder, EncoderBundleManifest),
        "tuned": as_input(layout.tuned_encoder, EncoderBundleManifest),
        "shards": as_input(layout.shards("val"), ShardSetManifest),
    }
    if robust.guard != "drawn":
        inputs["guard"] = as_input(robust.guard, ShardSetManifest)
    return ArtifactSpec(layout.encoder, EncoderBundleManifest, settings, inputs)


def is_interpolated(config: Config) -> bool:
    """Whether what is delivered lies between the start and the fine-tuned checkpoint."""
    return config.train.method == "wise_ft"


def embeddings(config: Config) -> ArtifactSpec:
    """The catalogue in the delivered space."""
    layout = layout_of(config)
    settings = {"splits": list(config.embed.splits), "precision": config.embed.precision}
    inputs = {
        f"shards/{split}": as_input(layout.shards(split), ShardSetManifest) for split in config.embed.splits
    }
    inputs["encoder"] = as_input(layout.encoder, EncoderBundleManifest)
    return ArtifactSpec(layout.embeddings, EmbeddingSetManifest, settings, inputs)


def projected_encoder(config: Config) -> ArtifactSpec:
    """The delivered checkpoint with a projection fitted to its embeddings of the training split."""
    layout = layout_of(config)
    inputs = {
        "encoder": as_input(layout.encoder, EncoderBundleManifest),
        "embeddings": as_input(layout.embeddings, EmbeddingSetManifest),
    }
    return ArtifactSpec(layout.projected_encoder, EncoderBundleManifest, _identity(config.projection), inputs)


def projected_embeddings(config: Config) -> ArtifactSpec:
    """The catalogue in the projected space."""
    layout = layout_of(config)
    inputs = {
        "embeddings": as_input(layout.embeddings, EmbeddingSetManifest),
        "encoder": as_input(layout.projected_encoder, EncoderBundleManifest),
    }
    return ArtifactSpec(layout.projected_embeddings, EmbeddingSetManifest, {}, inputs)


def index(config: Config) -> ArtifactSpec:
    """The index over the space that is served."""
    inputs = {"embeddings": as_input(served_embeddings(config), EmbeddingSetManifest)}
    return ArtifactSpec(layout_of(config).index, IndexBundleManifest, _identity(config.index), inputs)


def report(config: Config) -> ArtifactSpec:
    """The report on everything above."""
    layout = layout_of(config)
    inputs = {
        f"shards/{split}": as_input(layout.shards(split), ShardSetManifest) for split in ("val", "test")
    }
    inputs["start"] = as_input(layout.start_encoder, EncoderBundleManifest)
    if is_interpolated(config):
        inputs["tuned"] = as_input(layout.tuned_encoder, EncoderBundleManifest)
    inputs["embeddings"] = as_input(layout.embeddings, EmbeddingSetManifest)
    inputs["index"] = as_input(layout.index, IndexBundleManifest)
    return ArtifactSpec(layout.report, ReportManifest, _identity(config.evaluate), inputs)


def served_encoder(config: Config) -> str:
    """The bundle whose space is searched."""
    layout = layout_of(config)
    return layout.projected_encoder if config.projection.dimensions else layout.encoder


def served_embeddings(config: Config) -> str:
    """The EmbeddingSet that is indexed."""
    layout = layout_of(config)
    return layout.projected_embeddings if config.projection.dimensions else layout.embeddings


def latent_uri(config: Config) -> str | None:
    """The file with the latent attributes of a drawn catalogue; None for any other catalogue."""
    is_drawn = isinstance(config.catalog, DrawnCatalog)
    return storage.join(layout_of(config).catalog, LATENT) if is_drawn else None


def _held_back(section: TrainConfig) -> dict[str, Any]:
    """What the method makes of a run's steps: `wise_ft` trains as `full` does."""
    if section.method in ("full", "wise_ft"):
        return {"method": "full"}
    key = {"distil": "distil_weight", "top_layers": "top_layers"}[section.method]
    return {"method": section.method, "robust": section.robust.model_dump(mode="json", include={key})}


def _identity(section: Section, without: tuple[str, ...] = ()) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude=set(without))
