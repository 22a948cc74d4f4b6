"""The training loop of a worker: restore, then wait, agree, step, record, validate and save until the end."""

from __future__ import annotations

import gc
from typing import Any

import ray.train

from raysys.stream.skipped import SKIPPED_COLUMNS, SkippedSamples
from raysys.tracking.recorder import open_recorder
from raysys.train.batches import WorkerBatches
from raysys.train.checkpoint.saver import CheckpointSaver, restore
from raysys.train.job import TrainJob
from raysys.train.micro_batch import MicroBatch
from raysys.train.model import make_train_state, open_accelerator
from raysys.train.monitor.consensus import StepConsensus
from raysys.train.monitor.control_group import ControlGroup
from raysys.train.monitor.heartbeat import Heartbeat
from raysys.train.monitor.stall import DATA_READY, SAVING, WAITING_FOR_DATA
from raysys.train.results import ResultReader
from raysys.train.rng import seed_step
from raysys.train.step import train_step, warm_up_ddp_buckets
from raysys.train.step_metrics import Throughput
from raysys.train.validation.checkpoint_validator import CheckpointValidator
from raysys.train.wise_ft import measure_points
from raysys.train.worker import Worker

_BATCH_TIMEOUT_S = 1.0  # after this wait for data, the workers agree on what to do without it


def train_worker(job: TrainJob, coordinator: Any, micro_batch: MicroBatch) -> None:
    """Train from the last checkpoint, or from the start, to the last step or a stop request.

    After the last step measure what is not measured yet.
    """
    accelerator = open_accelerator(job.section, ray.train.get_context().get_world_size())
    consensus = StepConsensus(coordinator, accelerator, ControlGroup(job.section.collective_timeout_s))
    with Heartbeat(coordinator, accelerator) as heartbeat:
        worker = Worker(job, accelerator, consensus, heartbeat)
        validator = CheckpointValidator(worker)
        if _train(worker, micro_batch, validator):
            accelerator.free_memory()
            gc.collect()  # DDP and its model refer to each other
            measure_points(worker, validator)


def _train(worker: Worker, micro_batch: MicroBatch, validator: CheckpointValidator) -> bool:
    """Whether the training has come to its end, not to a stop request."""
    job, accelerator, heartbeat = worker.job, worker.accelerator, worker.heartbeat
    rank = accelerator.process_index
    state = make_train_state(
        job.start_uri, job.image, job.section, job.num_steps, accelerator,
        teacher_dimensions=job.teacher.dimensions if job.teacher else None,
    )  # fmt: skip
    step = first_step = restore(state)
    section = micro_batch.fit(state)

    heartbeat.enter(WAITING_FOR_DATA, step)
    saver = CheckpointSaver(job, state, step)
    skipped = SkippedSamples(job.shards, job.run_uri, rank, step * section.batch_size)
    throughput = Throughput(
        state.model, section, workers=accelerator.num_processes, device=accelerator.device
    )
    batches = WorkerBatches(job, accelerator, step, throughput)
    with open_recorder(job.tracked, step, is_main=accelerator.is_main_process) as recorder:
        results = ResultReader(job, worker.consensus.group, recorder, throughput, skipped)
        heartbeat.watch_towers(state.towers)

        def save_checkpoint(metrics: dict[str, float]) -> None:
            heartbeat.enter(SAVING)
            results.read()  # raises before a checkpoint holds a diverged step
            recorder.flush()
            saver.save(step, {"loss": results.loss, **metrics})
            heartbeat.enter(WAITING_FOR_DATA, step)

        if validator.is_missing(step):
            validator.validate(state, step, may_stop=True)
            recorder.flush()
            heartbeat.enter(WAITING_FOR_DATA, step)
        stop = False
        while not (stop or step >= job.num_steps or validator.has_stopped_early(step)):
            if has_batch := batches.wait(_BATCH_TIMEOUT_S):
                heartbeat.enter(DATA_READY)
            decision = worker.consensus.decide(has_batch=has_batch, save=saver.is_overdue())
            if (decision.save or decision.stop) and saver.saved_step < step:
                save_checkpoint({})
            if (stop := decision.stop) or not decision.is_ready:
                results.read()  # without a batch there is nothing to queue before
                continue

            batch = batches.take()
            samples = {name: batch[name].numpy() for name in SKIPPED_COLUMNS}
            skipped.add(samples)
            learning_rate = float(state.schedules[-1].get_last_lr()[0])
            is_logged = (step + 1) % section.log_every_steps == 0 or step + 1 == job.num_steps
            seed_step(job.seed, step, rank)
            if step == first_step:
                warm_up_ddp_buckets(state, batch, section)
            result = train_step(state, batch, section, measure_weights=is_logged)
            step += 1
            results.add(step, result, samples, learning_rate=learning_rate, is_logged=is_logged)
            heartbeat.enter(WAITING_FOR_DATA, step)
            if job.is_checkpoint_step(step):
                results.read()  # raises before a diverged step is validated
                with throughput.paused():
                    scores = validator.validate(state, step) if job.is_validated_step(step) else {}
                save_checkpoint(scores)
        results.read()
        saver.wait()
        return not stop
