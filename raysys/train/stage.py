"""The stage `train`: from a ShardSet to a fine-tuned EncoderBundle. `_fine_tune` is its main function."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from raysys import storage
from raysys.artifacts import ArtifactSpec, Manifest, specs
from raysys.artifacts.build import Step
from raysys.artifacts.vectors import vectors_input
from raysys.config import Config
from raysys.errors import InputError
from raysys.shards.reader import read_shard, require_items, shards_of
from raysys.shards.shard_set import require_attributes
from raysys.storage.lock import locked
from raysys.tracking.logs import log

if TYPE_CHECKING:
    from raysys.artifacts.specs import TrainingRun
    from raysys.evaluate.pairs import PairSource
    from raysys.evaluate.validation import Validation
    from raysys.train.job import TrainJob


def steps(config: Config) -> list[Step]:
    """Steps that publish the start, the fine-tuned bundle and, with `wise_ft`, the interpolated one."""
    # Both are created before the first artifact, so that an invalid configuration fails early.
    validation = functools.cache(lambda: _validation(config))
    retention = functools.cache(lambda: _retention_pairs(config))

    def make_start(spec: ArtifactSpec) -> Manifest:
        validation()
        retention()
        if config.train.teacher is not None:
            vectors_input(storage.absolute(config.train.teacher.embeddings))
        return _make_start(config, spec)

    layout, is_interpolated = specs.layout_of(config), specs.is_interpolated(config)
    made = [
        Step.single(layout.start_encoder, lambda: specs.start_encoder(config), make_start),
        Step.single(
            layout.fine_tuned_encoder if is_interpolated else layout.encoder,
            lambda: specs.fine_tuned_encoder(config),
            lambda spec: _fine_tune(config, spec, validation(), retention()),
        ),
    ]
    if is_interpolated:
        made.append(
            Step.single(
                layout.encoder,
                lambda: specs.encoder(config),
                lambda spec: _interpolate(config, spec, validation(), retention()),
            )
        )
    return made


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


def _fine_tune(
    config: Config, spec: ArtifactSpec, validation: Validation, retention: PairSource | None
) -> Manifest:
    """Train the run of this configuration to its end and export its best checkpoint.

    A stopped or killed run continues after its last checkpoint. Raises: as `_finished_run`.
    """
    from raysys.encoder.bundle import publish_trained_bundle
    from raysys.stream.skipped import report_skipped
    from raysys.tracking.wandb import log_end, report_offline_segments
    from raysys.train.checkpoint.format import exported_weights
    from raysys.train.checkpoint.registry import best_checkpoint_uri, newest_step

    started = time.monotonic()
    uri = specs.layout_of(config).shards("train")
    require_attributes(uri, config.train.caption_weights, "train.caption_weights")
    with _finished_run(config, specs.training_run(config), validation, retention) as job:
        num_samples = job.num_steps * config.train.batch_size
        report_skipped(
            job.run_uri, job.shards, num_samples=num_samples, max_bad_fraction=job.max_bad_fraction
        )
        checkpoint_uri = best_checkpoint_uri(job.run_uri)
        with storage.readable_folder(checkpoint_uri) as folder:
            manifest = publish_trained_bundle(
                spec,
                job.start_uri,
                exported_weights(folder),
                training_run=checkpoint_uri,
                num_items=newest_step(job.run_uri) * config.train.batch_size,
                seconds=time.monotonic() - started,
            )
        log_end(job.tracked, job.num_steps, spec.uri)
        report_offline_segments(job.run_uri, config.tracking)
    return manifest


def _interpolate(
    config: Config, spec: ArtifactSpec, validation: Validation, retention: PairSource | None
) -> Manifest:
    """Publish the best point between the start and the fine-tuned weights (WiSE-FT).

    The workers have measured the points at the end of training; after a change of settings they do it now.
    Raises: InputError if they have to, but the run's checkpoints are gone; and as `_finished_run`.
    """
    from raysys.encoder.bundle import publish_interpolated_bundle
    from raysys.encoder.interpolation import choose_alpha
    from raysys.train.checkpoint.registry import complete_steps
    from raysys.train.wise_ft import read_points

    run, layout = specs.training_run(config), specs.layout_of(config)
    if not complete_steps(run.uri):
        raise InputError(
            f"{run.uri}: has no checkpoint, and train.method=wise_ft measures points up to the best one; "
            f"put the run's folder back, or remove {layout.fine_tuned_encoder} to train again"
        )
    with _finished_run(config, run, validation, retention) as job:
        points = read_points(job)
        assert points is not None, f"{run.uri} is finished, but has no points"
        interpolation = choose_alpha(
            points, score=validation.score, max_retention_drop=config.train.robust.max_retention_drop
        )
        log.info("    train  %s", interpolation.summary())
        return publish_interpolated_bundle(
            spec, layout.start_encoder, layout.fine_tuned_encoder, interpolation
        )


@contextlib.contextmanager
def _finished_run(
    config: Config, run: TrainingRun, validation: Validation, retention: PairSource | None
) -> Iterator[TrainJob]:
    """The job of the run, trained to its end and measured; nobody else trains it inside the block.

    Raises: Busy if another process trains a run of this name, InputError if the run cannot start, Stopped
    after Ctrl-C or SIGTERM, and the errors of `trainer.fit`.
    """
    from raysys.cluster import session
    from raysys.stream.prepare_teacher import prepare_teacher
    from raysys.tracking.wandb import track_if_reachable
    from raysys.train import trainer
    from raysys.train.checkpoint.run_folder import prepare_run_folder
    from raysys.train.job import Sweep, make_job

    num_points, sweep = config.train.robust.interpolation_steps, None
    if retention is not None:
        sweep = Sweep(num_points, retention, specs.sweep_hash(config))
    job = make_job(config, run, validation=validation, sweep=sweep)
    with locked(run.runs_uri, "raysys train"):
        prepare_run_folder(run, config.train, num_steps=job.num_steps, start_uri=job.start_uri)
        if not trainer.is_finished(job):
            if config.train.teacher is not None:
                teacher = prepare_teacher(
                    run.inputs["teacher"].uri, run.uri, job.shards, max_bad_fraction=job.max_bad_fraction
                )
                job = dataclasses.replace(job, teacher=teacher)
            job = dataclasses.replace(job, tracking=track_if_reachable(job.tracked))
            session.connect(config.ray)
            trainer.fit(job, config.stream)
        yield job


def _validation(config: Config) -> Validation:
    from raysys.evaluate.validation import make_validation

    shards = shards_of(specs.layout_of(config).shards("val"))
    return make_validation(shards, config.train.validation, config.evaluate, specs.latent_uri(config))


def _retention_pairs(config: Config) -> PairSource | None:
    from raysys.evaluate.pairs import retention_pairs

    return retention_pairs(config.train.robust) if specs.is_interpolated(config) else None
