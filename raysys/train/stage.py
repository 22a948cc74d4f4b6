"""The stage `train`: from a ShardSet to a fine-tuned EncoderBundle. `_fine_tune` is its main function."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import TYPE_CHECKING

from raysys.artifacts import ArtifactSpec, Manifest, specs
from raysys.artifacts.build import Step
from raysys.config import Config
from raysys.shards.reader import read_shard, require_items, shards_of
from raysys.shards.shard_set import require_attributes
from raysys.storage.lock import locked

if TYPE_CHECKING:
    from raysys.train.validation.model_metrics import Validation
    from raysys.train.wise_ft import RetentionCheck


def steps(config: Config) -> list[Step]:
    """Steps that publish the start, the fine-tuned bundle and, with `wise_ft`, the interpolated one."""
    # Both are created before the first artifact, so that an invalid configuration fails early.
    validation = functools.cache(lambda: _validation(config))
    retention = functools.cache(lambda: _retention_check(config))
    is_interpolated = specs.is_interpolated(config)

    def make_start(spec: ArtifactSpec) -> Manifest:
        validation()
        if is_interpolated:
            retention()
        return _make_start(config, spec)

    def fine_tune(spec: ArtifactSpec) -> Manifest:
        return _fine_tune(config, spec, validation())

    def interpolate(spec: ArtifactSpec) -> Manifest:
        return _interpolate(config, spec, validation(), retention())

    layout = specs.layout_of(config)
    start_step = Step.single(layout.start_encoder, lambda: specs.start_encoder(config), make_start)
    fine_tuned_uri = layout.fine_tuned_encoder if is_interpolated else layout.encoder
    fine_tune_step = Step.single(fine_tuned_uri, lambda: specs.fine_tuned_encoder(config), fine_tune)
    if not is_interpolated:
        return [start_step, fine_tune_step]
    return [
        start_step,
        fine_tune_step,
        Step.single(layout.encoder, lambda: specs.encoder(config), interpolate),
    ]


def _make_start(config: Config, spec: ArtifactSpec) -> Manifest:
    """Publish the bundle that training starts from: a hub model, a folder, or a small random model."""
    from raysys.encoder.bundle import publish_bundle
    from raysys.encoder.start import text_preprocessing, write_start

    require_items([uri := specs.layout_of(config).shards("train")])
    shards = shards_of(uri)
    titles = (item.title for shard in shards for item in read_shard(shard))
    return publish_bundle(
        spec,
        lambda folder: write_start(folder, config.encoder, titles),
        text=text_preprocessing(config.encoder),
    )


def _fine_tune(config: Config, spec: ArtifactSpec, validation: Validation) -> Manifest:
    """Train the run of this configuration to its end and export its best checkpoint.

    A stopped or killed run continues after its last checkpoint.
    Raises: Busy if another process trains a run of this name, InputError if the run cannot start, Stopped
    after Ctrl-C or SIGTERM, and the errors of `trainer.fit`.
    """
    from raysys.cluster import session
    from raysys.encoder.bundle import preprocessing_of
    from raysys.tracking.wandb import log_end, report_offline_segments, track_if_reachable
    from raysys.train import trainer
    from raysys.train.checkpoint.format import export_bundle
    from raysys.train.checkpoint.registry import best_checkpoint_uri, newest_step
    from raysys.train.checkpoint.run_folder import prepare_run_folder
    from raysys.train.job import make_job
    from raysys.train.validation.checkpoint_validator import CheckpointValidator
    from raysys.train.validation.neighbour_grid import NeighbourGrid

    started = time.monotonic()
    layout, run = specs.layout_of(config), specs.training_run(config)
    require_attributes(layout.shards("train"), config.train.caption_weights, "train.caption_weights")
    job = make_job(config, run, lineage=spec.inputs, validation=validation)
    validator = CheckpointValidator(
        job.run_uri, job.start_uri, validation, NeighbourGrid(shards_of(layout.shards("val")), job.image)
    )
    with locked(run.runs_uri, "raysys train"):
        prepare_run_folder(run, config.train, num_steps=job.num_steps, start_uri=job.start_uri)
        job = dataclasses.replace(job, tracking=track_if_reachable(job.tracked))
        session.connect(config.ray)
        if not trainer.is_finished(job):
            trainer.fit(job, config.stream, validator)
        trainer.validate_remaining(job, validator)
        trainer.report_skipped_samples(job)
        manifest = export_bundle(
            spec,
            best_checkpoint_uri(job.run_uri),
            job.start_uri,
            text=preprocessing_of(job.start_uri)[1],
            num_items=newest_step(job.run_uri) * config.train.batch_size,
            seconds=time.monotonic() - started,
        )
        log_end(job.tracked, job.num_steps, spec.uri)
        report_offline_segments(job.run_uri, config.tracking)
    return manifest


def _interpolate(
    config: Config, spec: ArtifactSpec, validation: Validation, retention: RetentionCheck
) -> Manifest:
    """Measure points between the start and the fine-tuned weights and publish the best one (WiSE-FT)."""
    from raysys.cluster.task_map import connected_map
    from raysys.train import wise_ft

    layout = specs.layout_of(config)
    sweep = wise_ft.Sweep(layout.start_encoder, layout.fine_tuned_encoder, validation, retention)
    parallel = connected_map(config.ray, config.train.validation.num_gpus)
    return wise_ft.publish_best_point(spec, sweep, config.train.robust, parallel)


def _validation(config: Config) -> Validation:
    from raysys.train.validation.model_metrics import make_validation

    layout = specs.layout_of(config)
    return make_validation(
        layout.start_encoder,
        shards_of(layout.shards("val")),
        config.train.validation,
        config.evaluate,
        specs.latent_uri(config),
    )


def _retention_check(config: Config) -> RetentionCheck:
    from raysys.train.wise_ft import make_retention_check

    return make_retention_check(specs.layout_of(config).start_encoder, config.train.robust)
