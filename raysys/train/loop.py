"""What runs on every training worker: read top to bottom, it is the life of a run."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import ray.train
import torch
from accelerate import Accelerator

from raysys.stream.skipped import SKIPPED_COLUMNS, SkippedSamples, check_skipped_fraction, read_skipped
from raysys.train.batches import WorkerBatches
from raysys.train.checkpoint.saver import CheckpointSaver, restore
from raysys.train.job import TrainJob
from raysys.train.metrics.recorder import open_recorder
from raysys.train.metrics.throughput import Throughput
from raysys.train.metrics.weight_change import WeightChange
from raysys.train.model import make_train_state, open_accelerator
from raysys.train.monitor.consensus import StepConsensus
from raysys.train.monitor.heartbeat import Heartbeat
from raysys.train.nonfinite import require_finite
from raysys.train.rng import seed_step
from raysys.train.step import train_step, warm_up_ddp_buckets
from raysys.train.validation.early_stopping import EarlyStopping

_LOOK_UP_S = 1.0  # from waiting for data, to hear what others want


def train_worker(job: TrainJob, coordinator: Any) -> None:
    """Train from the last checkpoint, or from the start, to the last step or until somebody asks to stop."""
    section = job.section
    accelerator = open_accelerator(section, ray.train.get_context().get_world_size())
    engine = make_train_state(job.start_uri, job.image, section, job.num_steps, accelerator)
    step = first_step = restore(engine)
    lookout, saving = StepConsensus(coordinator, accelerator), CheckpointSaver(job, engine, step)
    patience = EarlyStopping(
        job.run_uri, section.validation.patience if accelerator.is_main_process else None
    )
    ledger = SkippedSamples(job.shards, job.run_uri, accelerator.process_index, step * section.batch_size)
    pace = Throughput(
        engine.model.config,
        pairs_per_worker=section.batch_size / accelerator.num_processes,
        workers=accelerator.num_processes,
        num_captions=1 + len(section.caption_weights),
        device=str(accelerator.device),
    )
    batches, loss = WorkerBatches(job, accelerator, step, pace), math.nan
    pulse = Heartbeat(coordinator, accelerator, step)
    with pulse, open_recorder(job, step, is_main=accelerator.is_main_process) as recorder:
        pulse.watch_towers(engine.towers)

        def keep_state() -> None:
            pulse.saving()
            recorder.flush()
            saving.save(step, loss=loss)
            pulse.waiting_for_data(step)

        while step < job.num_steps:
            if has_batch := batches.has_come(_LOOK_UP_S):
                pulse.data_ready()
            agreed = lookout.decide(
                has_batch=has_batch, save=saving.is_overdue(), finish_early=patience.should_stop()
            )
            if (agreed.save or agreed.ends_training) and saving.saved_step < step:
                keep_state()
            if agreed.ends_training:
                break
            if not agreed.is_ready:
                continue
            batch = batches.take()
            ledger.add({name: batch[name].cpu().numpy() for name in SKIPPED_COLUMNS})
            learning_rate = float(engine.schedules[-1].get_last_lr()[0])
            is_told = (step + 1) % section.log_every_steps == 0 or step + 1 == job.num_steps
            change = WeightChange(engine.model) if is_told else None
            seed_step(job.seed, step, accelerator.process_index)
            if step == first_step:
                warm_up_ddp_buckets(engine, batch, section)
            result = train_step(engine, batch, section)
            step, loss = step + 1, result.loss
            require_finite(result, step, batch, job, accelerator)
            if change is not None:
                figures = {
                    **dataclasses.asdict(result),
                    **change.metrics(),
                    "learning_rate": learning_rate,
                    **pace.metrics(),
                    "samples_seen": step * section.batch_size,
                    "samples_skipped": _count_skipped(accelerator, ledger, step, job),
                }
                recorder.add(step, figures)
            pulse.waiting_for_data(step)
            if job.is_checkpoint_step(step):
                keep_state()


def _count_skipped(accelerator: Accelerator, ledger: SkippedSamples, step: int, job: TrainJob) -> int:
    """Samples that all workers skipped so far.

    Raises: DamagedData, on all of them, when it is too much of this epoch.
    """
    stop = step * job.section.batch_size
    epoch_start = (stop - 1) // job.num_items * job.num_items
    own = [ledger.num_skipped(0, stop), ledger.num_skipped(epoch_start, stop)]
    in_run, in_epoch = accelerator.reduce(torch.tensor(own, device=accelerator.device)).tolist()
    if in_epoch > job.max_bad_fraction * job.num_items:
        check_skipped_fraction(read_skipped(job.run_uri), job.shards, job.max_bad_fraction)
    return int(in_run)
