"""The driver's side of training: configure and run Ray Train, and monitor the run until it ends."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Iterator
from typing import Any

import ray
import ray.data
import ray.train
import ray.train.torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysys import storage
from raysys.cluster import nodes as cluster_nodes
from raysys.cluster import session
from raysys.config.schema import RayConfig, StreamConfig, TrainConfig
from raysys.encoder.interpolation import SCORE
from raysys.errors import Busy, ClusterError
from raysys.evaluate.validation import has_stopped_early
from raysys.stream.concurrency import Concurrency, admit, choose_concurrency
from raysys.stream.decode import TrainingDecoder
from raysys.stream.read import execution_options, prepare_context, training_stream
from raysys.stream.shuffle_quality import log_shuffle_quality
from raysys.tracking.metrics_log import read_validations
from raysys.tracking.progress import RunLength, show_progress
from raysys.train.attempt import run_attempt
from raysys.train.checkpoint.registry import newest_step, remove_unregistered
from raysys.train.job import COORDINATORS, TrainJob
from raysys.train.monitor.capacity import worker_demand, worker_resources
from raysys.train.monitor.coordinator import RunCoordinator, StreamReports
from raysys.train.monitor.follow import follow_to_end
from raysys.train.wise_ft import read_points

_NAME_TIMEOUT_S = 10.0  # for Ray to release the actor name of a killed driver


def is_finished(job: TrainJob) -> bool:
    """Whether the run has its last checkpoint, or was stopped early, and all measurements are recorded."""
    step, validations = newest_step(job.run_uri), read_validations(job.run_uri)
    is_validated = not job.is_validated_step(step) or any(row["step"] == step for row in validations)
    has_ended = step >= job.num_steps or has_stopped_early(validations, step, job.section.validation.patience)
    return has_ended and is_validated and (job.sweep is None or read_points(job) is not None)


def fit(job: TrainJob, stream: StreamConfig) -> None:
    """Train to the last step and measure; a run with checkpoints continues after the last one.

    Raises: InputError if workers and stream do not fit the cluster together, Busy if another driver of this
    cluster trains the run, Stopped after Ctrl-C or SIGTERM, ClusterError if workers failed more often than
    `train.max_failures` or the first batch does not come; TrainingDiverged, OutOfMemory or DamagedData, which
    are not retried.
    """
    may_grow = session.may_grow(RayConfig(**job.config["ray"]))
    concurrency = admit("train", stream, functools.partial(worker_demand, job.section), may_grow=may_grow)
    prepare_context()
    log_shuffle_quality(job.shards, stream, seed=job.seed, batch_size=job.section.batch_size)
    length = RunLength(job.num_steps, job.section.batch_size, job.num_items)
    with (
        _run_coordinator(job, stream) as coordinator,
        show_progress(job.run_uri, length, job.validation.score),
    ):
        follow_to_end(_make_trainer(job, stream, concurrency, coordinator), job, coordinator)
    remove_unregistered(job.run_uri)  # left by workers that were killed
    if not is_finished(job):  # never export a partially trained model
        raise ClusterError(
            f"train: the workers ended after step {newest_step(job.run_uri)} of {job.num_steps}; "
            "run again to continue from the last checkpoint"
        )


def spare_blocks(section: TrainConfig) -> int:
    """Extra blocks after the last step, so that Ray assigns all its blocks for any number of workers."""
    return section.workers - 1 if section.is_elastic else 0


def _make_trainer(
    job: TrainJob, stream: StreamConfig, concurrency: Concurrency, coordinator: Any
) -> ray.train.torch.TorchTrainer:
    """The Ray Train trainer of a run."""
    section = job.section
    filesystem, path = storage.resolve(job.run_uri)
    storage_path, _, name = path.rpartition("/")
    failures = ray.train.FailureConfig(  # type: ignore[call-arg]  # Ray types it as Train V1's
        # Preemptions are counted separately and without a limit.
        max_failures=section.max_failures,
        # Without a limit Ray retries for ever a resource request that the cluster can never meet.
        controller_failure_limit=section.max_failures,
    )
    return ray.train.torch.TorchTrainer(
        _train_worker,
        train_loop_config={"job": job, "coordinator": coordinator},
        # Ranks that wait for a hung rank fail after this timeout, and Ray restarts the group.
        torch_config=ray.train.torch.TorchConfig(timeout_s=math.ceil(section.collective_timeout_s)),
        scaling_config=scaling_config(section, worker_resources(section)),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage_path,
            storage_filesystem=filesystem,  # with the endpoint of the environment
            failure_config=failures,
            # Ray keeps the best checkpoint, and the newest in any case.
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=SCORE),
        ),
        datasets={"train": functools.partial(_train_stream, job, stream, concurrency, coordinator)},
        # With Ray Train's default options batches would arrive in any order.
        dataset_config=ray.train.DataConfig(execution_options=execution_options(stream)),
    )


def _train_worker(loop_config: dict[str, Any]) -> None:
    run_attempt(loop_config["job"], loop_config["coordinator"])


def _train_stream(
    job: TrainJob, stream: StreamConfig, planned: Concurrency, coordinator: Any
) -> ray.data.Dataset:
    """The stream after the last checkpoint; Ray Train calls this at every start of the worker group.

    The concurrency follows the nodes that are there now; `planned` is the first start's.
    """
    section, nodes = job.section, cluster_nodes.alive_nodes()
    concurrency = choose_concurrency(
        stream, nodes, worker_demand(section, nodes), cores=cluster_nodes.num_cores(nodes)
    )
    if concurrency != planned:
        line = f"the cluster has changed: {concurrency.readers} readers and {concurrency.decoders} decoders"
        coordinator.log.remote(line)
    decode = TrainingDecoder(
        job.start_uri,
        job.image,
        job.text,
        section.augment,
        tuple(section.caption_weights),
        job.seed,
        stream.scaled_decoding,
        job.teacher,
        bool(section.patch_dropout),
    )
    return training_stream(
        job.shards,
        decode,
        stream,
        concurrency,
        seed=job.seed,
        start=newest_step(job.run_uri) * section.batch_size,
        stop=job.num_steps * section.batch_size + spare_blocks(section) * job.rows_per_block,
        rows_per_block=job.rows_per_block,
        listener=StreamReports(coordinator),
    )


def scaling_config(section: TrainConfig, worker_resources: dict[str, float]) -> ray.train.ScalingConfig:
    workers = (section.min_workers, section.workers) if section.is_elastic else section.workers
    # Ray checks for new nodes every 60 s; with 5 s it resized a healthy group again and again.
    return ray.train.ScalingConfig(
        num_workers=workers, use_gpu=section.use_gpu, resources_per_worker=worker_resources
    )


@contextlib.contextmanager
def _run_coordinator(job: TrainJob, stream: StreamConfig) -> Iterator[Any]:
    """The handle of the run's `RunCoordinator`; the actor ends with the block, which releases its name."""
    coordinator = start_coordinator(job, stream.first_batch_timeout_s)
    try:
        yield coordinator
    finally:
        ray.kill(coordinator)


def start_coordinator(job: TrainJob, first_batch_timeout_s: float) -> Any:
    """Start the run's `RunCoordinator` under a name that a cluster assigns only once.

    Raises: Busy if another driver of this cluster trains the run.
    """
    # On the driver's node: the run survives the loss of every other node.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, scheduling_strategy=here, max_restarts=-1, max_task_retries=-1)(
        RunCoordinator
    )
    named = actor.options(name=job.coordinator_name, namespace=COORDINATORS)
    deadline = time.monotonic() + _NAME_TIMEOUT_S
    while True:
        try:
            return named.remote(job.section.collective_timeout_s, first_batch_timeout_s)
        except ValueError as error:  # the name is taken
            if time.monotonic() >= deadline:
                raise Busy(
                    f"{job.run_uri}: another `raysys train` on this cluster trains this run; "
                    "wait for it to end, or change `name`"
                ) from error
            time.sleep(1.0)
