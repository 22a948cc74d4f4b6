"""The training loop of a worker: restore, then wait, agree, step, record, validate and save until the end."""

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
from raysys.train.metrics.step_metrics import Throughput, WeightChange
from raysys.train.model import make_train_state, open_accelerator
from raysys.train.monitor.consensus import StepConsensus
from raysys.train.monitor.heartbeat import Heartbeat
from raysys.train.nonfinite import require_finite
from raysys.train.rng import seed_step
from raysys.train.step import train_step, warm_up_ddp_buckets
from raysys.train.validation.checkpoint_validator import CheckpointValidator
from raysys.train.wise_ft import measure_points

_BATCH_TIMEOUT_S = 1.0  # after this wait for data, the workers agree on what to do without it


def train_worker(job: TrainJob, coordinator: Any) -> None:
    """Train from the last checkpoint, or from the start, to the last step or a stop request.

    After the last step measure what is not measured yet.
    """
    accelerator = open_accelerator(job.section, ray.train.get_context().get_world_size())
    consensus = StepConsensus(coordinator, accelerator)
    with Heartbeat(coordinator, accelerator) as heartbeat:
        validator = CheckpointValidator(job, accelerator, consensus, heartbeat)
        if _train(job, accelerator, consensus, heartbeat, validator):
            accelerator.free_memory()  # of the model and the optimisers
            measure_points(job, accelerator, validator, consensus, heartbeat)


def _train(
    job: TrainJob,
    accelerator: Accelerator,
    consensus: StepConsensus,
    heartbeat: Heartbeat,
    validator: CheckpointValidator,
) -> bool:
    """Whether the training has come to its end, not to a stop request."""
    section = job.section
    rank, is_main = accelerator.process_index, accelerator.is_main_process
    state = make_train_state(job.start_uri, job.image, section, job.num_steps, accelerator)
    step = first_step = restore(state)
    loss = math.nan

    heartbeat.restored(step)
    saver = CheckpointSaver(job, state, step)
    ledger = SkippedSamples(job.shards, job.run_uri, rank, step * section.batch_size)
    throughput = Throughput(
        state.model.config,
        pairs_per_worker=section.batch_size / accelerator.num_processes,
        workers=accelerator.num_processes,
        num_captions=1 + len(section.caption_weights),
        device=str(accelerator.device),
    )
    batches = WorkerBatches(job, accelerator, step, throughput)
    with open_recorder(job, step, is_main=is_main) as recorder:
        heartbeat.watch_towers(state.towers)

        def save_checkpoint(metrics: dict[str, float]) -> None:
            heartbeat.saving()
            recorder.flush()
            saver.save(step, {"loss": loss, **metrics})
            heartbeat.waiting_for_data(step)

        if validator.is_missing(step):
            validator.validate(state, step, may_stop=True)
            recorder.flush()
            heartbeat.waiting_for_data(step)
        stop = False
        while not (stop or step >= job.num_steps or validator.has_stopped_early(step)):
            if has_batch := batches.wait(_BATCH_TIMEOUT_S):
                heartbeat.data_ready()
            decision = consensus.decide(has_batch=has_batch, save=saver.is_overdue())
            if (decision.save or decision.stop) and saver.saved_step < step:
                save_checkpoint({})
            if (stop := decision.stop) or not decision.is_ready:
                continue

            batch = batches.take()
            ledger.add({name: batch[name].cpu().numpy() for name in SKIPPED_COLUMNS})
            learning_rate = float(state.schedules[-1].get_last_lr()[0])
            is_logged = (step + 1) % section.log_every_steps == 0 or step + 1 == job.num_steps
            weight_change = WeightChange(state.model) if is_logged else None
            seed_step(job.seed, step, rank)
            if step == first_step:
                warm_up_ddp_buckets(state, batch, section)
            result = train_step(state, batch, section)
            step, loss = step + 1, result.loss
            require_finite(result, step, batch, job, accelerator)

            if weight_change is not None:
                metrics = {
                    **dataclasses.asdict(result),
                    **weight_change.metrics(),
                    "learning_rate": learning_rate,
                    **throughput.metrics(),
                    "samples_seen": step * section.batch_size,
                    "samples_skipped": _count_skipped(accelerator, ledger, step, job),
                }
                recorder.add(step, metrics)
            heartbeat.waiting_for_data(step)
            if job.is_checkpoint_step(step):
                with throughput.paused():
                    save_checkpoint(validator.validate(state, step) if job.is_validated_step(step) else {})
        saver.wait()
        return not stop


def _count_skipped(accelerator: Accelerator, ledger: SkippedSamples, step: int, job: TrainJob) -> int:
    """Samples that all workers have skipped in this run. A collective call.

    Raises: DamagedData, on all workers, if the present epoch exceeds `stream.max_bad_fraction`.
    """
    stop = step * job.section.batch_size
    epoch_start = (stop - 1) // job.num_items * job.num_items
    local_counts = [ledger.num_skipped(0, stop), ledger.num_skipped(epoch_start, stop)]
    counts = accelerator.reduce(torch.tensor(local_counts, device=accelerator.device))
    in_run, in_epoch = counts.tolist()
    if in_epoch > job.max_bad_fraction * job.num_items:
        check_skipped_fraction(read_skipped(job.run_uri), job.shards, job.max_bad_fraction)
    return int(in_run)
