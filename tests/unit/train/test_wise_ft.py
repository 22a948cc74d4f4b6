"""WiSE-FT measures points between start and fine-tuned weights, and publishes the best eligible one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from raysys.artifacts import ArtifactSpec, EncoderBundleManifest, open_artifact
from raysys.config.schema import LoraConfig
from raysys.encoder.bundle import open_bundle, publish_interpolated_bundle, publish_trained_bundle
from raysys.encoder.interpolation import Interpolation, Point, choose_alpha, read_interpolation
from raysys.encoder.siglip import load_model
from raysys.evaluate.pairs import DrawnPairs
from raysys.evaluate.retrieval import recalls
from raysys.tracking.metrics_log import record_validation
from raysys.train.checkpoint.format import checkpoint_name, exported_weights, write_checkpoint
from raysys.train.job import Sweep, TrainJob
from raysys.train.step import train_step
from raysys.train.validation.checkpoint_validator import CheckpointValidator
from raysys.train.wise_ft import measure_points, read_points
from raysys.train.worker import Worker
from tests.factories import tiny_bundle
from tests.unit.train.small_model import (
    plain_embeddings,
    small_batch,
    small_job,
    small_section,
    small_state,
    write_validation_pairs,
)
from tests.unit.train.validation.test_checkpoint_validator import FakeRank

TITLES = 3 * [f"{colour} {kind}" for colour in ("red", "green", "blue") for kind in ("dress", "cup", "shoe")]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A start, and a fine-tuned bundle."""
    root = tmp_path_factory.mktemp("bundles")
    return tiny_bundle(root / "start", TITLES, bias=0.0), tiny_bundle(root / "tuned", TITLES, seed=8)


def publish(
    bundles: tuple[str, str], folder: Path, best_alpha: float, max_drop: float
) -> EncoderBundleManifest:
    """Publish one of five points: the score falls with the distance to `best_alpha`, the retention with alpha."""
    points = [
        Point(alpha=alpha, metrics={"score": -abs(alpha - best_alpha)}, retention=1.0 - alpha)
        for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    spec = ArtifactSpec(str(folder), EncoderBundleManifest, {}, {})
    interpolation = choose_alpha(points, score="r@5", max_retention_drop=max_drop)
    return publish_interpolated_bundle(spec, *bundles, interpolation)


def test_best_point_is_published_with_all_points_in_its_manifest(
    bundles: tuple[str, str], tmp_path: Path
) -> None:
    manifest = publish(bundles, tmp_path, best_alpha=0.75, max_drop=1.0)
    interpolation = read_interpolation(str(tmp_path))
    assert [(point.alpha, point.retention) for point in interpolation.points] == [
        (0.0, 1.0), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (1.0, 0.0)
    ]  # fmt: skip
    assert (interpolation.alpha, interpolation.min_retention) == (0.75, 0.0)
    start, fine_tuned, model = (load_model(uri).state_dict() for uri in (*bundles, tmp_path))
    for name, weight in model.items():
        torch.testing.assert_close(weight, 0.25 * start[name] + 0.75 * fine_tuned[name])
    parent = open_artifact(bundles[1], EncoderBundleManifest)
    assert manifest.parent_space_id == parent.space_id != manifest.space_id
    assert open_bundle(str(tmp_path)).space_id == manifest.space_id
    assert manifest.interpolation == interpolation.model_dump()


def test_point_with_too_little_retention_is_not_published(bundles: tuple[str, str], tmp_path: Path) -> None:
    publish(bundles, tmp_path, best_alpha=0.75, max_drop=0.5)
    assert read_interpolation(str(tmp_path)).alpha == 0.5


def test_alpha_1_publishes_the_fine_tuned_weights_exactly(bundles: tuple[str, str], tmp_path: Path) -> None:
    manifest = publish(bundles, tmp_path, best_alpha=1.0, max_drop=1.0)
    assert read_interpolation(str(tmp_path)).alpha == 1.0
    assert (tmp_path / "model.safetensors").read_bytes() == Path(bundles[1], "model.safetensors").read_bytes()
    assert manifest.space_id == manifest.parent_space_id  # the same weights are the same space
    # The fingerprint is the same too: other metrics at the same alpha require no new embeddings.
    assert manifest.fingerprint == open_artifact(bundles[1], EncoderBundleManifest).fingerprint


@pytest.fixture
def job(bundles: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> TrainJob:
    """A run with a checkpoint after two steps, its best, and a worse one after the third."""
    start = Path(bundles[0])
    section = small_section(learning_rate=0.01, micro_batch_size=2, **getattr(request, "param", {}))
    job = small_job(
        tmp_path / "run",
        start,
        section,
        write_validation_pairs(tmp_path / "val"),
        sweep=Sweep(3, DrawnPairs(12), "settings"),
    )
    state = small_state(start, section)
    for step, score in ((1, 0.2), (2, 0.5), (3, 0.4)):
        train_step(state, small_batch(step), section)
        uri = f"{job.run_uri}/{checkpoint_name(step)}"
        write_checkpoint(
            state.state_dict(), uri, step=step, spec_hash="f" * 64, stream_position=6 * step, world_size=1
        )
        record_validation(job.run_uri, step, {"val_score": score})
    return job


def measure(job: TrainJob, **rank: Any) -> list[Point] | None:
    """What a worker does after the last step."""
    fake: Any = FakeRank(**rank)
    worker = Worker(job, Accelerator(cpu=True), fake, fake)
    measure_points(worker, CheckpointValidator(worker))
    return read_points(job)


@pytest.mark.parametrize(
    "job", [{}, {"ema_decay": 0.5, "lora": LoraConfig(rank=2)}], ids=["full", "averaged lora"], indirect=True
)
def test_points_are_those_of_the_published_bundles(
    job: TrainJob, bundles: tuple[str, str], tmp_path: Path
) -> None:
    points = measure(job)
    assert points is not None
    assert [point.alpha for point in points] == [0.0, 0.5, 1.0]
    fine_tuned = str(tmp_path / "tuned")
    spec = ArtifactSpec(fine_tuned, EncoderBundleManifest, {}, {})
    checkpoint = Path(job.run_uri) / checkpoint_name(2)
    publish_trained_bundle(
        spec, bundles[0], exported_weights(checkpoint), training_run=str(checkpoint), num_items=0, seconds=0.0
    )
    for point in points:
        folder = tmp_path / f"{point.alpha}"
        spec = ArtifactSpec(str(folder), EncoderBundleManifest, {}, {})
        chosen = Interpolation(points=points, score="r@5", min_retention=0.0, alpha=point.alpha)
        publish_interpolated_bundle(spec, bundles[0], fine_tuned, chosen)
        encoder = open_bundle(str(folder))
        expected = job.validation.metrics(plain_embeddings(encoder, job.validation.pairs))
        assert point.metrics == pytest.approx(expected, abs=1e-6)
        retention = recalls(plain_embeddings(encoder, DrawnPairs(12)))["r@5"]
        assert point.retention == pytest.approx(retention, abs=1e-6)
    assert len({tuple(point.metrics.values()) for point in points}) > 1


def test_points_are_measured_once(job: TrainJob) -> None:
    points = measure(job)
    path = Path(job.run_uri, "sweep.json")
    written = path.stat().st_mtime_ns
    assert measure(job) == points
    assert path.stat().st_mtime_ns == written
    path.unlink()
    assert measure(job) == points


def test_points_of_other_settings_or_another_checkpoint_are_not_used(job: TrainJob) -> None:
    assert measure(job) is not None
    assert job.sweep is not None
    other = dataclasses.replace(job, sweep=dataclasses.replace(job.sweep, spec_hash="others"))
    assert read_points(other) is None
    record_validation(job.run_uri, 3, {"val_score": 0.6})  # now this one is the best
    assert read_points(job) is None


def test_stop_request_leaves_no_points(job: TrainJob) -> None:
    assert measure(job, is_stop_requested=True) is None
    assert not Path(job.run_uri, "sweep.json").exists()


def test_run_without_a_sweep_measures_no_points(job: TrainJob) -> None:
    assert measure(dataclasses.replace(job, sweep=None)) is None
    assert not Path(job.run_uri, "sweep.json").exists()
