"""Checkpoints are written beside the training, one at a time; Ray Train is played by a list of reports."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray.train
import torch
from accelerate import Accelerator

from raysys.config.schema import TrackingConfig, TrainConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.text import TextPreprocessing
from raysys.errors import StorageError
from raysys.train.checkpoint import saver as worker_saving
from raysys.train.checkpoint.format import CheckpointManifest, checkpoint_name, load_weights
from raysys.train.checkpoint.saver import Saving
from raysys.train.job import TrainJob
from raysys.train.model import TrainState


@dataclasses.dataclass
class Reports:
    """What was reported; `upload` does what Ray Train's thread does with the oldest that waits."""

    waiting: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def report(self, figures: dict[str, Any], checkpoint: Any = None, **said: Any) -> None:
        self.waiting.append({"figures": figures, "checkpoint": checkpoint, **said})

    def upload(self) -> ray.train.Checkpoint:
        oldest = self.waiting.pop(0)
        upload: Callable[..., ray.train.Checkpoint] = oldest["checkpoint_upload_fn"]
        return upload(oldest["checkpoint"], oldest["checkpoint_dir_name"])


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    made = Reports()
    monkeypatch.setattr(ray.train, "report", made.report)
    return made


@pytest.fixture
def model() -> torch.nn.Module:
    return torch.nn.Linear(2, 2)


@pytest.fixture
def saving(tmp_path: Path, model: torch.nn.Module) -> Saving:
    job = TrainJob(
        run_name="small",
        run_uri=str(tmp_path),
        spec_hash="f" * 64,
        start_uri="",
        image=ImagePreprocessing(16),
        text=TextPreprocessing(8),
        section=TrainConfig(batch_size=16),
        tracking=TrackingConfig(),
        config={},
        shards=[],
        is_validated=True,
        score="r@5",
        max_bad_fraction=0.0,
        rows_per_block=1,
        seed=0,
        num_steps=20,
        checkpoint_steps=8,
    )
    return Saving(job, TrainState(Accelerator(cpu=True), model, model, [], [], start=None), step=0)


def test_what_is_written_is_the_state_of_the_step_whatever_happens_until_then(
    reports: Reports, saving: Saving, model: torch.nn.Module, tmp_path: Path
) -> None:
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    saving.save(8, loss=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert not (tmp_path / checkpoint_name(8)).exists()
    written = reports.upload()
    assert Path(written.path) == tmp_path / checkpoint_name(8)
    assert load_weights(model, Path(written.path)) == 8
    assert all(torch.equal(wanted[name], value) for name, value in model.state_dict().items())
    manifest = CheckpointManifest.model_validate_json(Path(written.path, "checkpoint.json").read_bytes())
    assert (manifest.stream_position, manifest.world_size, manifest.spec_hash) == (8 * 16, 1, "f" * 64)


def test_second_save_waits_until_the_first_is_written(
    reports: Reports, saving: Saving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finished(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            reports.upload()  # what the thread does while somebody waits
            return super().wait(timeout)

    monkeypatch.setattr(threading, "Event", Finished)
    saving.save(8, loss=0.5)
    assert not (tmp_path / checkpoint_name(8)).exists()
    saving.save(16, loss=0.4)
    assert (tmp_path / checkpoint_name(8) / "checkpoint.json").exists()
    assert [one["figures"]["step"] for one in reports.waiting] == [16]


def test_failed_upload_is_told_and_holds_up_nobody(
    reports: Reports, saving: Saving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(worker_saving, "write_checkpoint", full)
    saving.save(8, loss=0.5)
    with pytest.raises(StorageError):
        reports.upload()
    saving.save(16, loss=0.4)
    assert [one["figures"]["step"] for one in reports.waiting] == [16]


def test_planned_checkpoints_alone_are_measured(reports: Reports, saving: Saving) -> None:
    for step in (8, 11, 16, 20):  # 11 is due by the clock, 20 the last
        saving.save(step, loss=0.5)
        assert reports.waiting[0]["validation"] is (step != 11)
        reports.upload()
