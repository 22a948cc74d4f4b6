"""The processes of `test_validation_ranks.py`: trainings with and without validations, and their points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raysys.config.schema import LoraConfig, TrainConfig, ValidationConfig
from raysys.encoder.interpolation import Point
from raysys.evaluate.pairs import DrawnPairs
from raysys.evaluate.retrieval import PairEmbeddings
from raysys.evaluate.validation import Validation
from raysys.train.checkpoint.format import checkpoint_name, write_checkpoint
from raysys.train.job import Sweep, TrainJob
from raysys.train.step import train_step, warm_up_ddp_buckets
from raysys.train.validation.checkpoint_validator import CheckpointValidator
from raysys.train.wise_ft import measure_points, read_points
from raysys.train.worker import Worker
from tests.ray.ranks import NUM_PAIRS, global_batch, make_state, part_of
from tests.unit.train.small_model import exported_weights, small_job, write_validation_pairs
from tests.unit.train.validation.test_checkpoint_validator import FakeRank

NUM_STEPS = 3
TRAININGS: dict[str, dict[str, Any]] = {
    "ddp": {"ema_decay": 0.5},
    "fsdp": {"parallel": "fsdp", "ema_decay": 0.5, "activation_checkpointing": "full"},
    "fsdp lora": {"parallel": "fsdp", "lora": LoraConfig(rank=2), "ema_decay": 0.5},
}


class CosineValidation(Validation):
    """The score is the mean cosine of a photo and its title, which every change of a weight changes."""

    def metrics(self, embedded: PairEmbeddings) -> dict[str, float]:
        cosine = float((embedded.photos * embedded.titles).sum(dim=1).double().mean())
        return {**super().metrics(embedded), "score": cosine}


def cosine_validation(folder: Path) -> CosineValidation:
    """It measures nine pairs that it writes to `folder`."""
    return CosineValidation(**vars(write_validation_pairs(folder)))


@dataclass(frozen=True)
class Validated:
    """What a rank has after a training that is validated before and after each step."""

    metrics: list[dict[str, float]]
    has_stopped: list[bool]
    losses: list[float]
    weights: dict[str, Tensor]
    """As exported; on rank 0."""
    plain_losses: list[float]
    """Of the same training without validation."""
    plain_weights: dict[str, Tensor]
    points: list[Point] | None
    alone: list[Point] | None
    """The points of a group that only measures them."""


def run_rank(rank: int, folder: str, world_sizes: tuple[int, ...]) -> None:
    """Run rank `rank` in one process group after another; every rank writes its results to `folder`."""
    torch.set_num_threads(1)
    for world_size in world_sizes:
        if rank >= world_size:
            continue
        rendezvous = f"file://{folder}/rendezvous-{world_size}"
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)
        torch.save(all_validated(Path(folder), rank, world_size), f"{folder}/ranks-{world_size}-{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()


def all_validated(folder: Path, rank: int, world_size: int) -> dict[str, Validated]:
    """The trainings of `TRAININGS`."""
    return {name: train(folder, name, rank, world_size) for name in TRAININGS}


def train(folder: Path, name: str, rank: int, world_size: int) -> Validated:
    """The same steps without validations, then with them, then the points of the best checkpoint, twice."""
    single = {"parallel": "ddp"} if world_size == 1 else {}
    settings = {"batch_size": NUM_PAIRS, "learning_rate": 0.02, "micro_batch_size": 2, **TRAININGS[name]}
    section = TrainConfig(**{**settings, **single, "validation": ValidationConfig(patience=1)})
    # Every rank writes the same pairs to a folder of its own.
    validation = cosine_validation(folder / f"val-{world_size}-{rank}")
    job = small_job(
        folder / f"run-{world_size}-{name}", folder / "tiny", section, validation, checkpoint_steps=1,
        sweep=Sweep(3, DrawnPairs(7), "settings"),
    )  # fmt: skip
    plain_losses, plain_weights = _plain(job, folder, rank, world_size)
    part = _titles_only(part_of(global_batch(), rank, world_size))
    state = make_state(folder, section, rank, world_size)
    fake: Any = FakeRank()
    worker = Worker(job, state.accelerator, fake, fake)
    validator = CheckpointValidator(worker)
    metrics, has_stopped, losses = [validator.validate(state, 0)], [], []
    warm_up_ddp_buckets(state, part, section)
    for step in range(1, NUM_STEPS + 1):
        losses.append(train_step(state, part, section).metrics()["loss"])
        metrics.append(validator.validate(state, step))
        has_stopped.append(validator.has_stopped_early(step))
        if saved := state.state_dict():
            uri = f"{job.run_uri}/{checkpoint_name(step)}"
            write_checkpoint(
                saved, uri, step=step, spec_hash="f" * 64, stream_position=0, world_size=world_size
            )
    saved = state.state_dict()
    state.accelerator.free_memory()
    points = []
    for _ in range(2):
        measure_points(worker, validator)
        points.append(read_points(job))
        if world_size > 1:
            dist.barrier()
        Path(job.run_uri, "sweep.json").unlink(missing_ok=True)
        if world_size > 1:
            dist.barrier()
    weights = exported_weights(saved) if saved else {}
    return Validated(metrics, has_stopped, losses, weights, plain_losses, plain_weights, points[0], points[1])


def _plain(job: TrainJob, folder: Path, rank: int, world_size: int) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and exported weights without validations."""
    state = make_state(folder, job.section, rank, world_size)
    part = _titles_only(part_of(global_batch(), rank, world_size))
    warm_up_ddp_buckets(state, part, job.section)
    losses = [train_step(state, part, job.section).metrics()["loss"] for _ in range(NUM_STEPS)]
    saved = state.state_dict()
    return losses, exported_weights(saved) if saved else {}


def _titles_only(part: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: rows[:, :1] if name in ("tokens", "caption_keys") else rows for name, rows in part.items()}
