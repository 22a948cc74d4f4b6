"""Small training runs on a drawn catalogue: their configuration, and what a test reads from them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import ray.train

from raysys.artifacts import specs
from raysys.config import Config
from raysys.errors import DamagedData
from raysys.tracking.metrics_log import read_metrics
from raysys.train.attempt import run_attempt
from raysys.train.checkpoint.registry import newest_step
from raysys.train.checkpoint.saver import CheckpointSaver
from tests.ray.wandb_file import OfflineRun, read_run

BATCH, NUM_STEPS, EVERY = 16, 32, 8
SMALL = {
    "name": "small",
    "catalog": {"kind": "drawn", "num_items": 120, "size_px": 32},
    "pack": {"items_per_shard": 24},
    "encoder": {
        "start": "scratch",
        "scratch": {
            "image_size_px": 32, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "text_num_layers": 1,
            "vocab_size": 200, "max_length": 8,
        }
    },
    "stream": {"shuffle_window_shards": 2, "decode_concurrency": 1},
    "tracking": {"mode": "offline"},
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A trained configuration and the URI of its run."""

    config: Config
    uri: str

    @property
    def losses(self) -> dict[int, float]:
        """Step -> loss; fails if a step was recorded twice."""
        rows = [row for row in read_metrics(self.uri) if "loss" in row]
        losses = {int(row["step"]): row["loss"] for row in rows}
        assert len(losses) == len(rows)
        return losses

    @property
    def weights(self) -> bytes:
        """The content of the file with the fine-tuned weights."""
        return Path(specs.layout_of(self.config).fine_tuned_encoder, "model.safetensors").read_bytes()

    @property
    def wandb_segments(self) -> list[OfflineRun]:
        """What each start of rank 0 logged to W&B."""
        return [read_run(path) for path in sorted(Path(self.uri).glob("wandb/offline-run-*/*.wandb"))]


def small_config(
    root: Path, num_items: int, *, workers: int = 2, num_steps: int = NUM_STEPS, **settings: Any
) -> Config:
    """A run of `num_steps` over `num_items`, with a checkpoint every `EVERY` steps."""
    train = {
        "workers": workers,
        "batch_size": BATCH,
        "epochs": (num_steps + 0.5) * BATCH / num_items,
        "checkpoint_every_epochs": EVERY * BATCH / num_items,
        "optimizer": "muon",
        "learning_rate": 1e-3,
        "log_every_steps": 1,
        "robust": {"interpolation_steps": 2, "retention_items": 16},
        **settings,
    }
    return Config.model_validate({**SMALL, "root": str(root), "train": train})


def run_of(config: Config) -> Run:
    return Run(config, specs.training_run(config).uri)


def copy_root(root: Path, other: Path) -> Path:
    """Copy shards, start encoder and the latent attributes to another root; artifacts can be moved."""
    shutil.copytree(root / "shards", other / "shards")
    shutil.copytree(root / "catalog", other / "catalog", ignore=shutil.ignore_patterns("images"))
    shutil.copytree(root / "encoders/small-start", other / "encoders/small-start")
    return other


def has_checkpoint(run_uri: str) -> bool:
    """Whether Ray Train has registered a checkpoint; its list may be unreadable while it is written."""
    try:
        return newest_step(run_uri) > 0
    except DamagedData:
        return False


def training_workers() -> list[int]:
    """The process ids of Ray Train's workers below this process."""
    workers = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # the process has ended
            if any("RayTrainWorker" in word for word in process.cmdline()):
                workers.append(process.pid)
    return workers


def worker_that_is_killed_before_a_save(loop_config: dict[str, Any]) -> None:
    """A worker that is killed once, if its run has a checkpoint, between the next one's validation and save."""
    job = loop_config["job"]
    real_save, is_killed = CheckpointSaver.save, Path(job.run_uri, "killed")
    is_continued = newest_step(job.run_uri) > 0
    with Path(job.run_uri, "attempts").open("a") as attempts:
        attempts.write(f"rank {ray.train.get_context().get_world_rank()}\n")

    def save(saver: CheckpointSaver, step: int, metrics: dict[str, float]) -> None:
        if is_continued and not is_killed.exists():
            is_killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        real_save(saver, step, metrics)

    with patch.object(CheckpointSaver, "save", save):
        run_attempt(job, loop_config["coordinator"])
