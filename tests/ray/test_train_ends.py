"""Training runs that end early: stopped by a signal, diverged, with a hung worker, out of memory."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import ray
import torch
import wandb

from raysys import pipeline
from raysys.artifacts import specs
from raysys.columns import PIXELS
from raysys.config import Config
from raysys.config.schema import TrackingConfig, TrainConfig
from raysys.errors import Busy, ClusterError, InputError, OutOfMemory, Stopped, TrainingDiverged
from raysys.shards.reader import read_shard, shards_of
from raysys.train import step as step_module
from raysys.train import trainer
from raysys.train.attempt import run_attempt
from raysys.train.checkpoint.registry import newest_step
from raysys.train.step_metrics import StepResult
from tests.ray.held_cpus import cpus_held_elsewhere
from tests.ray.training_runs import (
    EVERY,
    NUM_STEPS,
    Run,
    copy_root,
    has_checkpoint,
    run_of,
    small_config,
    training_workers,
)

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    # Ray 2.60 sets its own deprecated settings when it makes a DataContext.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
MAX_FITTING_PAIRS = 4  # of a worker with little memory


@pytest.fixture
def config(start: tuple[Path, int], tmp_path: Path) -> Config:
    """The same run, to be interrupted."""
    return small_config(copy_root(start[0], tmp_path), start[1])


def with_train(config: Config, **settings: Any) -> Config:
    section = {**config.train.model_dump(), **settings}
    return Config.model_validate({**config.model_dump(), "train": section})


def with_stream(config: Config, **settings: Any) -> Config:
    section = {**config.stream.model_dump(), **settings}
    return Config.model_validate({**config.model_dump(), "stream": section})


def after_first_checkpoint(run_uri: str, action: Callable[[], None]) -> threading.Thread:
    """A thread that waits for the run's first checkpoint and calls `action`."""

    def wait() -> None:
        deadline = time.monotonic() + 240
        while not has_checkpoint(run_uri):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def num_attempts(run: Run) -> int:
    """Starts of rank 0; each one writes a W&B folder."""
    return len(list(Path(run.uri).glob("wandb/offline-run-*")))


def test_diverged_run_names_step_and_items_without_a_retry(config: Config) -> None:
    config = with_train(config, optimizer="adamw", learning_rate=1e30, warmup_fraction=0.0)
    with pytest.raises(TrainingDiverged) as caught:
        pipeline.run_stage("train", config)
    match = re.match(
        r"train: the loss is (nan|inf) at step (\d+) \(gradient norm .*; no checkpoint has it",
        str(caught.value),
    )
    assert match, caught.value
    item_ids = {
        item.item_id for shard in shards_of(f"{config.root}/shards/train") for item in read_shard(shard)
    }
    for rank in range(2):
        named = re.search(rf"rank {rank}: samples \d+ to \d+ \((\S+), (\S+), (\S+), ..\)", str(caught.value))
        assert named
        assert set(named.groups()) <= item_ids
    assert num_attempts(run_of(config)) == 1
    assert newest_step(run_of(config).uri) < int(match[2])


def test_stop_signal_saves_a_checkpoint_and_exports_nothing(config: Config) -> None:
    run = run_of(config)
    signaller = after_first_checkpoint(run.uri, lambda: os.kill(os.getpid(), signal.SIGTERM))
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Stopped) as caught:
        pipeline.run_stage("train", config)
    signaller.join(timeout=1)
    step = newest_step(run.uri)
    assert EVERY < step < NUM_STEPS
    assert max(run.losses) == step
    checkpoint = f"{run.uri}/checkpoint_{step:08d}"
    assert str(caught.value).startswith("train: stopped")
    assert f"step {step} of {NUM_STEPS} ({checkpoint}); the same command continues" in str(caught.value)
    assert caught.value.exit_status == 143
    assert not Path(specs.layout_of(config).fine_tuned_encoder, "manifest.json").exists()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# Two more training runs.
@pytest.mark.slow
def test_stopped_run_continues_bit_for_bit(config: Config, uninterrupted: Run) -> None:
    run = run_of(config)
    after_first_checkpoint(run.uri, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Stopped) as caught:
        pipeline.run_stage("train", config)
    assert caught.value.exit_status == 130
    pipeline.run_stage("train", config)
    assert run.losses == uninterrupted.losses
    assert run.weights == uninterrupted.weights


# Waits for the collective timeout.
@pytest.mark.slow
def test_hung_worker_is_named_and_the_run_recovers_bit_for_bit(
    config: Config, uninterrupted: Run, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_train(config, collective_timeout_s=30.0)
    run = run_of(config)
    after_first_checkpoint(run.uri, lambda: os.kill(max(training_workers()), signal.SIGSTOP))
    pipeline.run_stage("train", config)
    line = r"no progress for \d+ s: rank [01] on node \S+ sends no heartbeat \(last: step \d+, [a-z ]+\)"
    assert re.search(line, caplog.text), caplog.text
    assert num_attempts(run) == 2
    assert run.weights == uninterrupted.weights


def low_memory_worker(loop_config: dict[str, Any]) -> None:
    """A worker with enough memory for `MAX_FITTING_PAIRS` pairs at a time."""
    real_train_step = step_module.train_step

    def train_step(
        train_state: Any, batch: dict[str, torch.Tensor], section: Any, **options: Any
    ) -> StepResult:
        if (section.micro_batch_size or len(batch[PIXELS])) > MAX_FITTING_PAIRS:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..")
        return real_train_step(train_state, batch, section, **options)

    with patch("raysys.train.loop.train_step", train_step):
        run_attempt(loop_config["job"], loop_config["coordinator"])


# One more training run, in two attempts.
@pytest.mark.slow
def test_out_of_memory_run_continues_with_half_the_micro_batch(
    config: Config, uninterrupted: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trainer, "_train_worker", low_memory_worker)
    config = with_train(config, on_out_of_memory="halve", max_failures=1)
    pipeline.run_stage("train", config)
    assert "for micro_batch_size 8; the run continues from the last checkpoint with 4" in caplog.text
    assert run_of(config).losses == pytest.approx(uninterrupted.losses, rel=1e-3)


# One more training run.
@pytest.mark.slow
def test_out_of_memory_run_names_the_setting_to_lower_without_a_retry(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_train_worker", low_memory_worker)
    with pytest.raises(OutOfMemory) as caught:
        pipeline.run_stage("train", config)
    assert "CUDA out of memory" in str(caught.value)
    assert "lower train.micro_batch_size (now 8" in str(caught.value)
    assert num_attempts(run_of(config)) == 1


def test_run_is_logged_offline_if_wandb_does_not_answer(
    start: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(copy_root(start[0], tmp_path), start[1], workers=1, num_steps=EVERY)
    tracking = TrackingConfig(mode="online", connect_timeout_s=2)
    wandb.teardown()  # it reads the environment once
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        pipeline.run_stage("train", config.model_copy(update={"tracking": tracking}))
    wandb.teardown()
    run = run_of(config)
    warnings = [line for line in caplog.messages if "W&B" in line and "still waiting" not in line]
    assert warnings[0].startswith("W&B: no run within 2 s, tracking.connect_timeout_s (")
    assert warnings[0].endswith("; this start logs offline")
    assert warnings[1:] == [
        "    train  a part of this run is logged offline, because W&B did not answer; when it does: "
        f"wandb sync --append {run.uri}/wandb/offline-run-*"
    ]
    history = [row for segment in run.wandb_segments for row in segment.history]
    assert {row["global_step"]: row["train/loss"] for row in history if "train/loss" in row} == run.losses


def test_decoders_that_hold_every_cpu_are_refused(config: Config) -> None:
    with pytest.raises(InputError) as caught:
        pipeline.run_stage("train", with_stream(config, decode_concurrency=6))
    assert str(caught.value) == (
        "train: 2 training workers (train.workers) with 1 CPU each, "
        "1 reader (stream.read_concurrency) with 1 CPU each, "
        "6 decoders (stream.decode_concurrency) with 1 CPU each need 9 CPUs together; "
        "the cluster has 1 node with 8 CPUs and 0 GPUs; "
        "lower stream.decode_concurrency to 5, or set it to null, or raise ray.num_cpus"
    )


def test_run_without_a_first_batch_ends_with_what_waits(config: Config) -> None:
    config = with_train(with_stream(config, first_batch_timeout_s=15.0), workers=1)
    with cpus_held_elsewhere(6), pytest.raises(ClusterError) as caught:
        pipeline.run_stage("train", config)
    assert str(caught.value).startswith("train: no batch within ")
    assert "reading: 1 task, " in str(caught.value)
    assert "decoding: " in str(caught.value)
    assert " of 1 actors running, 0 tasks, 0 queued; " in str(caught.value)
    assert "; 0 of 8 CPUs of the cluster are free; if CPUs are missing, " in str(caught.value)
    assert num_attempts(run_of(config)) == 1


def test_run_that_another_driver_of_the_cluster_trains_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_NAME_TIMEOUT_S", 0.0)
    uri = "s3://bucket/runs/shop/0123"
    job: Any = SimpleNamespace(run_uri=uri, coordinator_name=f"train {uri}", section=TrainConfig())
    first = trainer.start_coordinator(job, first_batch_timeout_s=600.0)
    with pytest.raises(Busy, match="s3://bucket/runs/shop/0123: another `raysys train`"):
        trainer.start_coordinator(job, first_batch_timeout_s=600.0)
    ray.kill(first)
