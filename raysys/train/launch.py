"""`raysys train`, on the driver: what Ray Train is asked for, and what has to be so before and after it."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.autoscaler.sdk
import ray.data
import ray.train
import ray.train.torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysys import observe, storage
from raysys.config.schema import StreamConfig, TrainConfig
from raysys.errors import ClusterError, InputError
from raysys.stream.decode import TrainingDecoder
from raysys.stream.ledger import read_skipped, reasons_line, require_few_skipped
from raysys.stream.mixing import measure_mixing
from raysys.stream.read import execution_options, prepare_context, training_stream
from raysys.train.driver.follow import followed
from raysys.train.driver.progress import Length
from raysys.train.driver.room import lacking
from raysys.train.driver.watch import Watch
from raysys.train.figures.metrics import read_validations
from raysys.train.run.checkpoint import checkpoint_name
from raysys.train.run.lock import in_use
from raysys.train.run.measurement import Draw, Measure, measure_checkpoint
from raysys.train.run.patience import has_ended_early
from raysys.train.run.registry import (
    SCORE,
    best_step,
    newest_step,
    registered_steps,
    remove_unregistered,
)
from raysys.train.waiting import wait_for_end
from raysys.train.worker.attempt import attempt
from raysys.train.worker.job import TrainJob
from raysys.train.worker.saving import checkpoint_at

_NODES_WAIT_S = 300.0  # for the first nodes of a cluster that grows when asked; longer is a fault to look at
_NAME_WAIT_S = 10.0  # for Ray to notice that the driver which had the name was killed


@dataclass(frozen=True)
class Epochs:
    """A run's length in steps."""

    num_steps: int
    checkpoint_steps: int


def count_steps(num_items: int, section: TrainConfig) -> Epochs:
    """Whole global batches in `section.epochs` passes over `num_items`.

    Raises: InputError if there are fewer items than a batch.
    """
    if num_items < section.batch_size:
        raise InputError(
            f"train.batch_size: {section.batch_size} pairs a step, "
            f"but the train split has {num_items} items; lower it"
        )
    num_steps = max(1, math.floor(section.epochs * num_items / section.batch_size))
    every = max(1, round(section.checkpoint_every_epochs * num_items / section.batch_size))
    return Epochs(num_steps, every)


def fit(job: TrainJob, stream: StreamConfig, measure: Measure, draw: Draw) -> str:
    """Run the training to its end and return the URI of its best checkpoint.

    A run with checkpoints continues after the last of them.
    Raises: InputError if the cluster is too small, Stopped at Ctrl-C or SIGTERM, ClusterError if workers
    failed more often than allowed; TrainingDiverged, OutOfMemory or DamagedData at once.
    """
    is_finished = has_ended_early(job.run_uri, job.section.validation.patience)
    if newest_step(job.run_uri) < job.num_steps and not is_finished:
        worker = {"GPU" if job.section.use_gpu else "CPU": 1.0}
        _require_room(job, worker)
        prepare_context()
        validation = functools.partial(_measure_checkpoint, job, measure, draw)
        _say_mixing(job, stream)
        length = Length(job.num_steps, job.section.batch_size, job.num_items)
        with _watch(job) as watch, followed(job.run_uri, length, job.score):
            wait_for_end(_trainer(job, stream, watch, worker, validation), job, watch)
        remove_unregistered(job.run_uri)  # of workers that were killed
        _require_finished(job)
    _measure_what_was_not(job, measure, draw)
    _say_what_became_of_the_samples(job)
    return storage.join(job.run_uri, checkpoint_name(best_step(job.run_uri)))


def _trainer(
    job: TrainJob,
    stream: StreamConfig,
    watch: Any,
    worker: dict[str, float],
    validation: Callable[..., dict[str, float]],
) -> ray.train.torch.TorchTrainer:
    """What Ray Train is asked for: workers with these resources each, and how often it may try again."""
    section = job.section
    filesystem, path = storage.resolve(job.run_uri)
    storage_path, _, name = path.rpartition("/")
    failures = ray.train.FailureConfig(  # type: ignore[call-arg]  # Ray types it as Train V1's
        # Preemptions count apart, and without a limit.
        max_failures=section.max_failures,
        # Without a limit Ray retries a request that the cluster can never meet for ever.
        controller_failure_limit=section.max_failures,
    )
    return ray.train.torch.TorchTrainer(  # type: ignore[call-arg]  # and its trainer, too
        _train_worker,
        train_loop_config={"job": job, "watch": watch},
        # The ranks that wait for a hung one fail after this, and Ray starts the group again.
        torch_config=ray.train.torch.TorchConfig(timeout_s=math.ceil(section.collective_timeout_s)),
        scaling_config=_scaling(section, worker),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage_path,
            storage_filesystem=filesystem,  # with the endpoint of the environment
            failure_config=failures,
            # The best, and always the newest beside it.
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=SCORE),
        ),
        validation_config=ray.train.ValidationConfig(
            validation,
            task_config=ray.train.ValidationTaskConfig(timeout_s=section.validation.timeout_s),
            ray_remote_kwargs={"num_cpus": 1, "num_gpus": section.validation.num_gpus},
        ),
        datasets={"train": functools.partial(_train_stream, job, stream)},
        # Ray Train sets options of its own otherwise, and batches would come in any order.
        dataset_config=ray.train.DataConfig(execution_options=execution_options(stream)),
    )


def _train_stream(job: TrainJob, stream: StreamConfig) -> ray.data.Dataset:
    """Asked for anew at every start of the worker group, so it continues where the checkpoint is."""
    section = job.section
    decode = TrainingDecoder(
        job.start_uri,
        job.image,
        job.text,
        section.augment,
        tuple(section.caption_weights),
        job.seed,
        stream.scaled_decoding,
    )
    return training_stream(
        job.shards,
        decode,
        stream,
        seed=job.seed,
        start=newest_step(job.run_uri) * section.batch_size,
        stop=job.num_steps * section.batch_size + spare_blocks(section) * job.rows_per_block,
        rows_per_block=job.rows_per_block,
    )


def _require_finished(job: TrainJob) -> None:
    """Nothing half-trained is exported, whatever made the workers end early."""
    trained = newest_step(job.run_uri)
    if trained < job.num_steps and not has_ended_early(job.run_uri, job.section.validation.patience):
        raise ClusterError(
            f"train: the workers ended after step {trained} of {job.num_steps}; "
            "run again to continue from the last checkpoint"
        )


def _measure_what_was_not(job: TrainJob, measure: Measure, draw: Draw) -> None:
    """Measure the checkpoints that a kill after the last step has left without figures."""
    measured = {row["step"] for row in read_validations(job.run_uri)}
    left = [step for step in registered_steps(job.run_uri) if job.is_measured(step) and step not in measured]
    task = ray.remote(num_cpus=1, num_gpus=job.section.validation.num_gpus)(_measure_checkpoint)
    for step in left:
        observe.log.info("    train  measures the checkpoint after step %d, which was left", step)
        checkpoint = checkpoint_at(storage.join(job.run_uri, checkpoint_name(step)))
        ray.get(task.remote(job, measure, draw, checkpoint))


def _train_worker(loop_config: dict[str, Any]) -> None:
    attempt(loop_config["job"], loop_config["watch"])


def _measure_checkpoint(
    job: TrainJob, measure: Measure, draw: Draw, checkpoint: ray.train.Checkpoint
) -> dict[str, float]:
    """What Ray Train runs beside the training; the figures come to stand with the checkpoint."""
    with checkpoint.as_directory() as folder:
        return measure_checkpoint(job.run_uri, job.start_uri, Path(folder), measure, draw)


def spare_blocks(section: TrainConfig) -> int:
    """Blocks after the last step's, so that Ray deals all of those, to however many workers there are."""
    return section.workers - 1 if section.is_elastic else 0


def _scaling(section: TrainConfig, worker: dict[str, float]) -> ray.train.ScalingConfig:
    workers = (section.min_workers, section.workers) if section.is_elastic else section.workers
    # How often Ray looks for nodes stays at its 60 s: at 5 s it resized a healthy group to and fro.
    return ray.train.ScalingConfig(num_workers=workers, use_gpu=section.use_gpu, resources_per_worker=worker)


def _say_mixing(job: TrainJob, stream: StreamConfig) -> None:
    found = measure_mixing(
        [shard.num_items for shard in job.shards],
        seed=job.seed,
        shards_per_window=stream.shuffle_window_shards,
        batch_size=job.section.batch_size,
    )
    observe.log.info(
        "    train  %d shards; of a whole shuffle: a sample travels %.2f as far, a batch mixes %.2f as many",
        len(job.shards), found.travel, found.batch_spread,
    )  # fmt: skip


def _say_what_became_of_the_samples(job: TrainJob) -> None:
    skipped = read_skipped(job.run_uri)
    require_few_skipped(skipped, job.shards, job.max_bad_fraction)
    if skipped:
        observe.log.warning(
            "    train  %d of %d samples were skipped (%s); %s names them",
            len(skipped), job.num_steps * job.section.batch_size, reasons_line(skipped), job.run_uri,
        )  # fmt: skip


def _require_room(job: TrainJob, worker: dict[str, float]) -> None:
    """Wait a bounded time for the nodes of a cluster that may grow; one on this machine does not."""
    may_grow = bool(job.config["ray"]["address"] or os.environ.get("RAY_ADDRESS"))
    give_up = time.monotonic() + (_NODES_WAIT_S if may_grow else 0)
    fewest = job.section.min_workers or job.section.workers
    is_asked = False
    try:
        while lack := lacking(_nodes(), worker, job.section):
            if time.monotonic() >= give_up:
                raise InputError(lack)
            if not is_asked:
                observe.log.warning("    train  waits up to %.0f s for nodes: %s", _NODES_WAIT_S, lack)
                ray.autoscaler.sdk.request_resources(bundles=[worker] * fewest)
                is_asked = True
            time.sleep(1.0)
    finally:
        if is_asked:  # from now on the workers themselves hold what they need
            ray.autoscaler.sdk.request_resources(bundles=[])


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@contextlib.contextmanager
def _watch(job: TrainJob) -> Iterator[Any]:
    """The run's `Watch` while the block runs; then its name is free again."""
    watch = _start_watch(job)
    try:
        yield watch
    finally:
        ray.kill(watch)


def _start_watch(job: TrainJob) -> Any:
    """The run's `Watch`, under a name that this cluster gives but once.

    Raises: InputError if another command on this cluster trains the run.
    """
    # At home with the driver: another node may go, and the run go on.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, scheduling_strategy=here, max_restarts=-1, max_task_retries=-1)(Watch)
    named = actor.options(name=f"train {job.run_uri}", namespace="raysys")
    give_up = time.monotonic() + _NAME_WAIT_S
    while True:
        try:
            return named.remote(job.section.collective_timeout_s)
        except ValueError as error:  # the name is taken
            if time.monotonic() >= give_up:
                raise in_use(job.run_uri) from error
            time.sleep(1.0)
