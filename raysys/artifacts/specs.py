"""The spec of every artifact that a configuration describes: where it is, its settings and its inputs.

The settings of a spec are those that determine the artifact's content. Others, such as the number of workers
or the logging interval, are left out: changing them does not make an artifact out of date.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from raysys import storage
from raysys.artifacts import (
    ArtifactSpec,
    CatalogManifest,
    EmbeddingSetManifest,
    EncoderBundleManifest,
    FrontierManifest,
    IndexBundleManifest,
    InputEntry,
    ReportManifest,
    ShardSetManifest,
    as_input,
    canonical_json,
    open_artifact,
)
from raysys.artifacts.directory import read_manifest
from raysys.artifacts.layout import LATENT, ArtifactLayout
from raysys.artifacts.shipped import tiny_checkpoint
from raysys.artifacts.vectors import vectors_input
from raysys.config import Config
from raysys.config.schema import SPLITS, Columns, DrawnCatalog, Section, TrainConfig
from raysys.config.section import ChangeableOnResume, SelectsAlpha, SelectsCheckpoint, marked_names
from raysys.config.store import without_password
from raysys.errors import InputError, MissingArtifact
from raysys.store.url import SQLITE_FILE, store_url

CHANGES = "changes"  # the input of an index that is the log of changes


@dataclass(frozen=True)
class TrainingRun:
    """A training run: its folder, and the settings and inputs that determine every update of the weights.

    Settings that may change while a run continues (number of epochs, machines) are not part of it: a run with
    the same name and spec hash continues after a crash, on other workers, and when `train.epochs` is raised.
    """

    runs_uri: str
    """Folder of all runs of this name."""
    settings: Mapping[str, Any]
    """The settings that determine the run, under their names in the configuration."""
    inputs: Mapping[str, InputEntry]

    @property
    def spec_hash(self) -> str:
        """Hash of settings and input contents; the inputs' URIs do not count."""
        contents = {name: entry.fingerprint for name, entry in self.inputs.items()}
        identity = canonical_json({"kind": "TrainingRun", "config": self.settings, "inputs": contents})
        return storage.sha256_of_bytes(identity.encode())

    @property
    def uri(self) -> str:
        """The run's folder: one per spec hash, so a changed configuration never continues another run."""
        return storage.join(self.runs_uri, self.spec_hash[:12])


def layout_of(config: Config) -> ArtifactLayout:
    """The URIs of this configuration's artifacts."""
    return ArtifactLayout(storage.absolute(config.root), config.name)


def drawn_catalog(config: Config) -> ArtifactSpec:
    """The drawn catalogue."""
    return ArtifactSpec(layout_of(config).catalog, CatalogManifest, _settings(config.catalog), {})


def shard_set(config: Config, split: str, columns: Columns, catalog: InputEntry) -> ArtifactSpec:
    """The ShardSet of a split, from the catalogue with this fingerprint."""
    settings = {
        "split": split,
        "pack": _settings(config.pack, without={"max_bad_fraction", "parent", "retry_refused"}),
        "columns": _settings(columns),
    }
    return ArtifactSpec(
        layout_of(config).shards(split),
        ShardSetManifest,
        settings,
        {"catalog": catalog, **parent_shards(config)},
    )


def indexed_shard_set(config: Config, split: str, columns: Section, tars: InputEntry) -> ArtifactSpec:
    """The ShardSet of a split that refers to the tars with this fingerprint."""
    settings = {
        "split": split,
        "pack": config.pack.model_dump(mode="json", include={"split", "duplicates", "max_photo_megabytes"}),
        "columns": _settings(columns),
    }
    return ArtifactSpec(layout_of(config).shards(split), ShardSetManifest, settings, {"tars": tars})


def parent_shards(config: Config) -> dict[str, InputEntry]:
    """The ShardSets of `pack.parent`, of all splits because an item may move to another split.

    Raises: MissingError if they do not exist, InputError if `pack.parent` is this configuration's own output.
    """
    parent = config.pack.parent
    if parent is None:
        return {}
    if storage.absolute(parent) == layout_of(config).shard_sets:
        raise InputError(
            f"pack.parent: {parent} is the output folder of this pack; set root to another folder, "
            "and pack again"
        )
    return {
        f"parent/{split}": as_input(storage.join(storage.absolute(parent), split), ShardSetManifest)
        for split in SPLITS
    }


def start_encoder(config: Config) -> ArtifactSpec:
    """The checkpoint that training starts from; the tokenizer of `scratch` is learnt from training titles.

    Raises: DamagedData if the files of `tiny` have changed since the installation.
    """
    layout, inputs = layout_of(config), {}
    is_random = config.encoder.start == "scratch"
    settings = _settings(config.encoder, without=set() if is_random else {"scratch", "seed"})
    if is_random:
        inputs["shards"] = as_input(layout.shards("train"), ShardSetManifest)
    elif config.encoder.start == "tiny":
        inputs["tiny"] = tiny_checkpoint()
    return ArtifactSpec(layout.start_encoder, EncoderBundleManifest, settings, inputs)


def training_run(config: Config) -> TrainingRun:
    """The training run of this configuration, of any length."""
    layout = layout_of(config)
    settings = {
        "train": _run_settings(config.train),
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
    if (teacher := config.train.teacher) is not None:
        inputs["teacher"] = vectors_input(storage.absolute(teacher.embeddings))
    return TrainingRun(layout.runs, settings, inputs)


def fine_tuned_encoder(config: Config) -> ArtifactSpec:
    """The best checkpoint of the training run; without interpolation it is the delivered encoder."""
    run, section = training_run(config), config.train
    train = {
        **run.settings["train"],
        "epochs": section.epochs,
        "patch_dropout": section.patch_dropout,
        "validation": _marked_settings(section.validation, SelectsCheckpoint),
    }
    settings = {**run.settings, "train": train}
    layout = layout_of(config)
    uri = layout.fine_tuned_encoder if is_interpolated(config) else layout.encoder
    return ArtifactSpec(uri, EncoderBundleManifest, settings, run.inputs)


def encoder(config: Config) -> ArtifactSpec:
    """The delivered encoder: the fine-tuned one, or the best interpolation between it and the start."""
    if not is_interpolated(config):
        return fine_tuned_encoder(config)
    layout = layout_of(config)
    settings, inputs = _alpha_settings(config), _alpha_inputs(config)
    inputs["fine_tuned"] = as_input(layout.fine_tuned_encoder, EncoderBundleManifest)
    return ArtifactSpec(layout.encoder, EncoderBundleManifest, settings, inputs)


def sweep_hash(config: Config) -> str:
    """Hash of all that determines the metrics of interpolated weights, but for the fine-tuned weights."""
    settings = _alpha_settings(config)
    del settings["robust"]["max_retention_drop"]  # it only selects a point
    contents = {name: entry.fingerprint for name, entry in _alpha_inputs(config).items()}
    return storage.sha256_of_bytes(canonical_json({"config": settings, "inputs": contents}).encode())


def is_interpolated(config: Config) -> bool:
    """Whether the delivered weights are an interpolation between start and fine-tuned weights."""
    return config.train.method == "wise_ft"


def embeddings(config: Config) -> ArtifactSpec:
    """The catalogue's embeddings by the delivered encoder."""
    layout = layout_of(config)
    shards = _embedded_shards(config)  # before the encoder, which is made from them
    return _embeddings(config, shards, as_input(layout.encoder, EncoderBundleManifest), layout.embeddings)


def embeddings_by(config: Config, encoder: InputEntry, uri: str) -> ArtifactSpec:
    """The catalogue's embeddings by any encoder, at `uri`."""
    return _embeddings(config, _embedded_shards(config), encoder, uri)


def joined_embeddings(config: Config, vectors: InputEntry, uri: str) -> ArtifactSpec:
    """The catalogue with vectors that were made elsewhere, at `uri`."""
    settings = {"splits": list(config.embed.splits)}
    return ArtifactSpec(uri, EmbeddingSetManifest, settings, {**_embedded_shards(config), "vectors": vectors})


def projected_encoder(config: Config) -> ArtifactSpec:
    """The delivered encoder with a projection fitted to its embeddings of the training split."""
    layout = layout_of(config)
    inputs = {
        "encoder": as_input(layout.encoder, EncoderBundleManifest),
        "embeddings": as_input(layout.embeddings, EmbeddingSetManifest),
    }
    return ArtifactSpec(layout.projected_encoder, EncoderBundleManifest, _settings(config.projection), inputs)


def projected_embeddings(config: Config) -> ArtifactSpec:
    """The catalogue's embeddings in the projected space."""
    layout = layout_of(config)
    inputs = {
        "embeddings": as_input(layout.embeddings, EmbeddingSetManifest),
        "encoder": as_input(layout.projected_encoder, EncoderBundleManifest),
    }
    return ArtifactSpec(layout.projected_embeddings, EmbeddingSetManifest, {}, inputs)


def index(config: Config) -> ArtifactSpec:
    """The index over the served embeddings. Raises: MissingArtifact without them."""
    uri = served_embeddings(config)
    _require_named_embeddings(config)
    settings = _settings(config.index, without={"device", "embeddings"})
    inputs = {"embeddings": as_input(uri, EmbeddingSetManifest)}
    if last := last_change(config):
        inputs[CHANGES] = InputEntry(uri=without_password(store_url(config)), fingerprint=str(last))
    return ArtifactSpec(served_index(config), IndexBundleManifest, settings, inputs)


def last_change(config: Config) -> int:
    """The sequence of the last change in the log; 0 without a log. Raises: StoreFailed, InputError."""
    if config.store.url is None and not storage.exists(storage.join(config.root, SQLITE_FILE)):
        return 0
    from raysys.store.change_log import ChangeLog  # imports SQLAlchemy

    log = ChangeLog(store_url(config), config.store.timeout_s)
    try:
        return log.last()
    finally:
        log.close()


def frontier(config: Config) -> ArtifactSpec:
    """Size and latency of the full vectors and of shorter ones against quality."""
    layout, evaluated = layout_of(config), config.evaluate
    inputs = {"embeddings": as_input(layout.embeddings, EmbeddingSetManifest)}
    inputs |= {f"shards/{split}": as_input(layout.shards(split), ShardSetManifest) for split in SPLITS}
    settings = {
        "frontier": _settings(config.frontier),
        "index": config.index.model_dump(mode="json", include={"recall_queries", "recall_k"}),
        "whiten": config.projection.whiten,
        "evaluate": evaluated.model_dump(
            mode="json", include={"log", "attribute_precision", "splits", "bootstrap_samples", "seed"}
        ),
    }
    return ArtifactSpec(layout.frontier, FrontierManifest, settings, inputs)


def report(config: Config) -> ArtifactSpec:
    """The evaluation report."""
    layout = layout_of(config)
    inputs = {
        f"shards/{split}": as_input(layout.shards(split), ShardSetManifest) for split in ("val", "test")
    }
    inputs["start"] = as_input(layout.start_encoder, EncoderBundleManifest)
    if is_interpolated(config):
        inputs["fine_tuned"] = as_input(layout.fine_tuned_encoder, EncoderBundleManifest)
    inputs["embeddings"] = as_input(layout.embeddings, EmbeddingSetManifest)
    inputs["index"] = as_input(layout.index, IndexBundleManifest)
    baselines = config.evaluate.baselines
    inputs |= {f"baseline/{baseline.name}": vectors_input(baseline.embeddings) for baseline in baselines}
    settings = {**_settings(config.evaluate), "baselines": [baseline.name for baseline in baselines]}
    return ArtifactSpec(layout.report, ReportManifest, settings, inputs)


def served_encoder(config: Config) -> str | None:
    """URI of the EncoderBundle that embeds queries; None if the vectors of `index.embeddings` are of none.

    Raises: MissingArtifact if there is no EmbeddingSet of that name.
    """
    layout = layout_of(config)
    if config.index.embeddings is None:
        return layout.projected_encoder if config.projection.dimensions else layout.encoder
    _require_named_embeddings(config)
    embeddings = open_artifact(served_embeddings(config), EmbeddingSetManifest)
    encoder = embeddings.inputs.get("encoder")
    if encoder is None or read_manifest(encoder.uri, EncoderBundleManifest) is None:
        return None
    return encoder.uri


def served_embeddings(config: Config) -> str:
    """URI of the EmbeddingSet that is indexed and served."""
    layout = layout_of(config)
    if config.index.embeddings is not None:
        return layout.embeddings_named(config.index.embeddings)
    return layout.projected_embeddings if config.projection.dimensions else layout.embeddings


def served_index(config: Config) -> str:
    """URI of the IndexBundle that is made and served."""
    return layout_of(config).index_named(config.index.embeddings or config.name)


def latent_uri(config: Config) -> str | None:
    """URI of the latent attributes of a drawn catalogue; None for other catalogues."""
    is_drawn = isinstance(config.catalog, DrawnCatalog)
    return storage.join(layout_of(config).catalog, LATENT) if is_drawn else None


def _run_settings(section: TrainConfig) -> dict[str, Any]:
    """The settings of `train` that determine a run; of `robust` only what its method uses while training."""
    changeable = marked_names(type(section), ChangeableOnResume)
    settings = _settings(section, without={*changeable, "method", "robust", "teacher"})
    if section.teacher is not None:
        settings["teacher"] = _settings(section.teacher, without={"embeddings"})  # an input of the run
    if section.method in ("full", "wise_ft"):
        return {**settings, "method": "full"}  # wise_ft trains in the same way and interpolates afterwards
    key = {"distil": "distil_weight", "top_layers": "top_layers"}[section.method]
    robust = section.robust.model_dump(mode="json", include={key})
    return {**settings, "method": section.method, "robust": robust}


def _alpha_settings(config: Config) -> dict[str, Any]:
    train = config.train
    settings: dict[str, Any] = {
        "robust": _marked_settings(train.robust, SelectsAlpha),
        "validation": _marked_settings(train.validation, SelectsAlpha),
    }
    if train.validation.score in (None, "ndcg@5"):
        settings["log"] = _settings(config.evaluate.log)
    return settings


def _alpha_inputs(config: Config) -> dict[str, InputEntry]:
    layout, retention_set = layout_of(config), config.train.robust.retention_set
    inputs = {
        "start": as_input(layout.start_encoder, EncoderBundleManifest),
        "shards": as_input(layout.shards("val"), ShardSetManifest),
    }
    if retention_set != "drawn":
        inputs["retention_set"] = as_input(retention_set, ShardSetManifest)
    return inputs


def _settings(section: Section, without: Set[str] = frozenset()) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude=set(without))


def _marked_settings(section: Section, marker: type[SelectsAlpha | SelectsCheckpoint]) -> dict[str, Any]:
    return section.model_dump(mode="json", include=marked_names(type(section), marker))


def _require_named_embeddings(config: Config) -> None:
    name, uri = config.index.embeddings, served_embeddings(config)
    if name is not None and read_manifest(uri, EmbeddingSetManifest) is None:
        raise MissingArtifact(
            f"index.embeddings: {uri}: no EmbeddingSet here; make it with "
            f"`raysys embed CONFIG --vectors URI --to {name}`, or with --encoder instead of --vectors"
        )


def _embedded_shards(config: Config) -> dict[str, InputEntry]:
    layout = layout_of(config)
    return {
        f"shards/{split}": as_input(layout.shards(split), ShardSetManifest) for split in config.embed.splits
    }


def _embeddings(
    config: Config, shards: Mapping[str, InputEntry], encoder: InputEntry, uri: str
) -> ArtifactSpec:
    settings = {"splits": list(config.embed.splits), "precision": config.embed.chosen_precision}
    return ArtifactSpec(uri, EmbeddingSetManifest, settings, {**shards, "encoder": encoder})
