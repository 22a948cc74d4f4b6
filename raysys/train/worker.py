"""What runs on every training worker: read top to bottom, it is the life of a run.

Rank 0 alone writes: checkpoints through `ray.train.report`, figures to `metrics.jsonl` and W&B.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import ray.train
import torch
from accelerate import Accelerator

from raysys import observe, storage
from raysys.config.schema import TrackingConfig, TrainConfig
from raysys.encoder import siglip
from raysys.encoder.preprocess import ImagePreprocessing, TextPreprocessing
from raysys.errors import DamagedData, TrainingDiverged
from raysys.records import SHARD_NUMBER, STREAM_POSITION
from raysys.stream.ledger import LEDGER_COLUMNS, StreamLedger, read_skipped, require_few_skipped
from raysys.stream.order import worker_positions
from raysys.stream.shard import ShardRef
from raysys.train import optim
from raysys.train.checkpoint import TrainingState, checkpoint_name
from raysys.train.metrics import MetricsFile
from raysys.train.pace import Pace
from raysys.train.step import StepResult, TwoTowers, train_step
from raysys.train.validate import retrieval

Record: TypeAlias = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class TrainJob:
    """All that a worker is told; it opens everything else by URI."""

    run_name: str
    run_uri: str
    start_uri: str
    image: ImagePreprocessing
    text: TextPreprocessing
    section: TrainConfig
    tracking: TrackingConfig
    config: dict[str, Any]  # the resolved configuration, for W&B
    shards: list[ShardRef]
    validation_shards: list[ShardRef]
    max_bad_fraction: float
    rows_per_block: int  # of the stream; decides which worker gets which samples of a batch
    num_steps: int
    checkpoint_steps: int  # a checkpoint every so many steps, and after the last


def train_worker(job: TrainJob) -> None:
    """Train from the last checkpoint, or from the start, to the last step."""
    section = job.section
    accelerator = _accelerator(section)
    with storage.readable_folder(job.start_uri) as folder:
        model = siglip.load_model(folder).to(accelerator.device)  # before the optimisers look at it
    optim.freeze(model, section)
    optimizers = optim.make_optimizers(model, section)
    factor = optim.learning_rate_factor(job.num_steps, section.warmup_fraction)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
    state = TrainingState(model, optimizers, schedules)
    step = _restore(state)
    towers, *optimizers = accelerator.prepare(TwoTowers(model, job.image), *optimizers)
    with _recorder(job, accelerator, step) as record:
        ledger = StreamLedger(job.shards, job.run_uri, accelerator.process_index)
        pace = Pace(
            model.config,
            share=section.batch_size // accelerator.num_processes,
            workers=accelerator.num_processes,
            num_captions=1 + len(section.caption_weights),
            device=str(accelerator.device),
        )
        for batch in pace.timed(_batches(accelerator, section)):
            _check_position(batch, step, job, accelerator)
            ledger.add({name: batch[name].cpu().numpy() for name in LEDGER_COLUMNS})
            learning_rate = schedules[-1].get_last_lr()[0]
            result = train_step(accelerator, towers, optimizers, schedules, batch, section)
            step += 1
            _require_finite(result, step, batch, job)
            if step % section.log_every_steps == 0 or step == job.num_steps:
                figures = {
                    **dataclasses.asdict(result),
                    "learning_rate": float(learning_rate),
                    **pace.figures(),
                    "samples_seen": step * section.batch_size,
                    "samples_skipped": _count_skipped(accelerator, ledger, step, job),
                }
                record(step, figures)
            if step % job.checkpoint_steps == 0 or step == job.num_steps:
                record(step, _validate(accelerator, model, job))
                _report(accelerator, step, result.loss, state)


def _accelerator(section: TrainConfig) -> Accelerator:
    precision = "bf16" if section.precision == "bf16" else "no"
    # On a CPU a plain Accelerator() trains every worker alone and says nothing.
    accelerator = Accelerator(cpu=not section.use_gpu, mixed_precision=precision)
    world_size = ray.train.get_context().get_world_size()
    assert accelerator.num_processes == world_size, f"{accelerator.num_processes=} in a group of {world_size}"
    return accelerator


def _restore(state: TrainingState) -> int:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return state.load(Path(folder))


def _batches(accelerator: Accelerator, section: TrainConfig) -> Iterator[dict[str, torch.Tensor]]:
    shard = ray.train.get_dataset_shard("train")
    assert shard is not None
    share = section.batch_size // accelerator.num_processes
    return iter(
        shard.iter_torch_batches(
            batch_size=share,
            device=str(accelerator.device),
            prefetch_batches=2,
            drop_last=True,
            pin_memory=section.use_gpu,
        )
    )


def _check_position(
    batch: dict[str, torch.Tensor], step: int, job: TrainJob, accelerator: Accelerator
) -> None:
    workers, rank = accelerator.num_processes, accelerator.process_index
    wanted = worker_positions(step, job.section.batch_size, workers, rank, job.rows_per_block)
    positions = batch[STREAM_POSITION].cpu().numpy()
    if not np.array_equal(positions, wanted):
        raise DamagedData(
            f"train: step {step} got {len(positions)} samples from position {positions[0]}, "
            f"wanted {len(wanted)} from {wanted[0]}; this is a fault of raysys, please report it"
        )


def _require_finite(result: StepResult, step: int, batch: dict[str, torch.Tensor], job: TrainJob) -> None:
    """Stop before weights that are no numbers get into a checkpoint; all workers see the same loss."""
    if not math.isfinite(result.loss):
        shards = {job.shards[number].uri for number in batch[SHARD_NUMBER].tolist()}
        positions = batch[STREAM_POSITION]
        raise TrainingDiverged(
            f"train: the loss is {result.loss} at step {step} (gradient norm {result.grad_norm:.3g}, scale "
            f"{result.scale:.3g}); this worker had samples {int(positions.min())} to {int(positions.max())} "
            f"of the sequence, from {', '.join(sorted(shards)[:3])}; no checkpoint has it: lower "
            "train.learning_rate, or look at these items with `raysys verify`"
        )


def _count_skipped(accelerator: Accelerator, ledger: StreamLedger, step: int, job: TrainJob) -> int:
    """Samples that all workers skipped so far.

    Raises: DamagedData, on all of them, when it is too much of this epoch.
    """
    stop = step * job.section.batch_size
    per_epoch = sum(shard.num_items for shard in job.shards)
    epoch_start = (stop - 1) // per_epoch * per_epoch
    own = [ledger.num_skipped(0, stop), ledger.num_skipped(epoch_start, stop)]
    in_run, in_epoch = accelerator.reduce(torch.tensor(own, device=accelerator.device)).tolist()
    if in_epoch > job.max_bad_fraction * per_epoch:
        require_few_skipped(read_skipped(job.run_uri), job.shards, job.max_bad_fraction)
    return int(in_run)


def _validate(accelerator: Accelerator, model: Any, job: TrainJob) -> dict[str, float]:
    if not accelerator.is_main_process or not job.validation_shards:
        return {}
    found = retrieval(
        model, job.start_uri, job.validation_shards, job.image, job.text, job.section.validation_items
    )
    return {f"val_{name}": value for name, value in found.items()}


def _report(accelerator: Accelerator, step: int, loss: float, state: TrainingState) -> None:
    if not accelerator.is_main_process:
        ray.train.report({"step": step, "loss": loss})
        return
    with tempfile.TemporaryDirectory() as folder:
        state.save(Path(folder), step)
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"step": step, "loss": loss}, checkpoint, checkpoint_dir_name=checkpoint_name(step))


@contextlib.contextmanager
def _recorder(job: TrainJob, accelerator: Accelerator, step: int) -> Iterator[Record]:
    """A function that keeps figures of a step; on other ranks than 0 it does nothing."""
    if not accelerator.is_main_process:
        yield lambda step, values: None
        return
    figures = MetricsFile(job.run_uri, continue_after=step)
    with observe.tracking(job.run_name, job.run_uri, job.config, **job.tracking.model_dump()) as tracker:

        def record(step: int, values: dict[str, float]) -> None:
            if values:
                figures.append(step, values)
                tracker.log({f"train/{name}": value for name, value in values.items()}, step)

        yield record
