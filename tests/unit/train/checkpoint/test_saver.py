"""Checkpoints are written while training continues, one at a time; Ray Train is a fake that lists reports."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.train
import torch
from accelerate import Accelerator

from raysys.config.schema import TrainConfig
from raysys.errors import DiskFull, RaysysError, StorageError
from raysys.train.checkpoint import saver as saver_module
from raysys.train.checkpoint.format import CheckpointManifest, checkpoint_name, exported_weights
from raysys.train.checkpoint.saver import CheckpointSaver
from raysys.train.model import TrainState
from tests.unit.train.small_model import small_job


@dataclasses.dataclass
class FakeRayTrain:
    """Collects reports; `upload` does with the oldest one what Ray Train's upload thread does."""

    reports: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def report(self, metrics: dict[str, Any], checkpoint: Any = None, **options: Any) -> None:
        self.reports.append({"metrics": metrics, "checkpoint": checkpoint, **options})

    def upload(self) -> ray.train.Checkpoint:
        oldest = self.reports.pop(0)
        upload: Callable[..., ray.train.Checkpoint] = oldest["checkpoint_upload_fn"]
        return upload(oldest["checkpoint"], oldest["checkpoint_dir_name"])


@pytest.fixture
def ray_train(monkeypatch: pytest.MonkeyPatch) -> FakeRayTrain:
    fake = FakeRayTrain()
    monkeypatch.setattr(ray.train, "report", fake.report)
    return fake


@pytest.fixture
def model() -> torch.nn.Module:
    return torch.nn.Linear(2, 2)


@pytest.fixture
def saver(tmp_path: Path, model: torch.nn.Module) -> CheckpointSaver:
    job = small_job(tmp_path, Path(), TrainConfig(batch_size=16))
    return CheckpointSaver(job, TrainState(Accelerator(cpu=True), model, model, [], [], start=None), step=0)


def test_checkpoint_holds_the_state_of_its_step_although_training_continued(
    ray_train: FakeRayTrain, saver: CheckpointSaver, model: torch.nn.Module, tmp_path: Path
) -> None:
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    saver.save(8, {"loss": 0.5, "score": 0.25})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert not (tmp_path / checkpoint_name(8)).exists()
    written = ray_train.upload()
    assert Path(written.path) == tmp_path / checkpoint_name(8)
    weights = exported_weights(Path(written.path))
    assert all(torch.equal(expected[name], value) for name, value in weights.items())
    manifest = CheckpointManifest.model_validate_json(Path(written.path, "checkpoint.json").read_bytes())
    assert (manifest.stream_position, manifest.world_size, manifest.spec_hash) == (8 * 16, 1, "f" * 64)


def test_second_save_waits_for_the_first_upload(
    ray_train: FakeRayTrain, saver: CheckpointSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class UploadingEvent(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            ray_train.upload()  # the upload happens while the saver waits
            return super().wait(timeout)

    monkeypatch.setattr(threading, "Event", UploadingEvent)
    saver.save(8, {"loss": 0.5, "score": 0.25})
    assert not (tmp_path / checkpoint_name(8)).exists()
    saver.save(16, {"loss": 0.4})
    assert (tmp_path / checkpoint_name(8) / "checkpoint.json").exists()
    assert [one["metrics"]["step"] for one in ray_train.reports] == [16]


def test_failed_upload_raises_and_does_not_block_the_next_save(
    ray_train: FakeRayTrain, saver: CheckpointSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(saver_module, "write_checkpoint", fail)
    saver.save(8, {"loss": 0.5, "score": 0.25})
    with pytest.raises(StorageError):
        ray_train.upload()
    saver.save(16, {"loss": 0.4})
    assert [one["metrics"]["step"] for one in ray_train.reports] == [16]


def test_upload_to_a_full_disk_ends_the_run(
    ray_train: FakeRayTrain, saver: CheckpointSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[tuple[RaysysError, int]] = []
    give_up = SimpleNamespace(remote=lambda error, world_size: reasons.append((error, world_size)))
    coordinators = {(f"train {tmp_path}", "raysys"): SimpleNamespace(give_up=give_up)}
    monkeypatch.setattr(ray, "get_actor", lambda name, namespace: coordinators[name, namespace])
    monkeypatch.setattr(ray, "get", lambda result: result)
    error = DiskFull("the disk is full")

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(saver_module, "write_checkpoint", fail)
    saver.save(8, {"loss": 0.5})
    with pytest.raises(DiskFull):
        ray_train.upload()
    assert reasons == [(error, 1)]


def test_ray_train_gets_the_score_with_the_checkpoint(
    ray_train: FakeRayTrain, saver: CheckpointSaver
) -> None:
    saver.save(8, {"loss": 0.5, "score": 0.25})
    (report,) = ray_train.reports
    assert report["metrics"] == {"step": 8, "loss": 0.5, "score": 0.25}
    assert report["checkpoint_dir_name"] == checkpoint_name(8)
    assert "validation" not in report
