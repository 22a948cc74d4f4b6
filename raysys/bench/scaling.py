"""Training on more GPUs: a plan computed from given numbers, and a check of its formulas on this machine.

The check trains the tiny model on several gloo processes, once together and once each alone. Both share cores
and memory in the same way, so the difference is communication, a larger share of steps with few pairs. The
plan's formulas get the step time of the lone processes (the slowest process of each step), gloo's bandwidth
and its latency; their prediction is printed beside the measured step time.
The GPUs are planned, not measured: `bench.gpu_pairs_per_s` and the links come from the configuration.
"""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from raysys.bench.config import BenchConfig, BenchRunConfig
from raysys.bench.measure import Case, CaseResult, Measurement
from raysys.bench.models import PUBLISHED_RUN_PAIRS, Batch, random_batch, siglip_b16_config, write_start
from raysys.bench.plan import Links, RankLoad, step_time
from raysys.config.schema import TrainConfig
from raysys.encoder import siglip, start
from raysys.encoder.flops import training_flops_per_pair
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.step import backward

TOGETHER, ALONE = "together", "each alone"
_PROBE_BYTES, _NUM_PROBES = 8 << 20, 20
# Settings of the plan: `cases` stores them as properties, from which `conclusions` reads them.
_PLAN_SETTINGS = (
    "gpu_pairs_per_s",
    "gpu_batch_size",
    "gpu_hour_price",
    "gpus_per_node",
    "node_gb_per_s",
    "network_gb_per_s",
    "hop_latency_s",
    "gradient_overlap",
    "decoded_per_core_s",
)


@dataclass(frozen=True)
class ScalingWork:
    """What every rank trains, and for how many steps."""

    ranks: int
    encoder_uri: str
    image: ImagePreprocessing
    max_length: int
    section: TrainConfig
    num_warm_up: int
    num_measured: int


def cases(config: BenchRunConfig, folder: Path) -> Iterator[Case]:
    """One case per number of ranks and number of pairs per rank."""
    section, encoder = config.bench, folder / "encoder"
    write_start(config, encoder)
    model = siglip.load_model(encoder)
    for ranks, rows in product(section.scaling_ranks, section.scaling_rows):
        work = ScalingWork(
            ranks,
            str(encoder),
            siglip.image_preprocessing_of(encoder),
            start.text_preprocessing(config.encoder).max_length,
            config.train.model_copy(update={"micro_batch_size": None, "caption_weights": {}}),
            section.train_warm_up_steps,
            math.ceil(section.train_steps * max(section.scaling_rows) / rows),
        )
        contenders: dict[str, Callable[[], Measurement]] = {
            TOGETHER: partial(run_ranks, work, rows, together=True),
            ALONE: partial(run_ranks, work, rows, together=False),
        }
        properties = {
            "ranks": ranks,
            "rows_per_rank": rows,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "dimensions": siglip.dimensions_of(model.config),
            "flops_per_pair": training_flops_per_pair(model.config),
            **{name: float(getattr(section, name)) for name in _PLAN_SETTINGS},
            **{f"plan_{number}": float(gpus) for number, gpus in enumerate(section.gpus)},
        }
        name = f"{ranks} rank{'s' if ranks > 1 else ''}, {rows} pairs each"
        yield Case(name, "pairs/s", contenders, ALONE, ALONE, properties)


def conclusions(results: Sequence[CaseResult]) -> list[str]:
    """The check, one line per case with several ranks, then the plan."""
    checks = [_check(result) for result in results if result.properties["ranks"] > 1]
    properties = results[0].properties
    settings = BenchConfig.model_validate(
        {name: properties[name] for name in _PLAN_SETTINGS}
        | {"gpus": tuple(int(properties[name]) for name in properties if name.startswith("plan_"))}
    )
    return [*checks, *plan(settings)]


def plan(section: BenchConfig) -> list[str]:
    """One line per number of GPUs: a step of SigLIP-B/16-256, time and price of the published run."""
    load, links = _gpu_load(section), _gpu_links(section)
    lines = [
        f"plan, not measured: {section.gpu_pairs_per_s:,.0f} pairs/s of one GPU, {section.gpu_batch_size} "
        f"pairs per step, {section.node_gb_per_s:g} GB/s in a node of {section.gpus_per_node}, "
        f"{section.network_gb_per_s:g} GB/s between nodes, {section.gpu_hour_price:g} USD per GPU hour, "
        f"{section.decoded_per_core_s:g} photos/s per core: from the configuration"
    ]
    for gpus in section.gpus:
        step = step_time(load, links, gpus)
        rate = gpus * load.pairs / step.total_s
        hours = PUBLISHED_RUN_PAIRS / rate / 3600
        lines.append(
            f"{gpus} GPU{'s' if gpus > 1 else ''}: step {1000 * step.total_s:.1f} ms (towers "
            f"{1000 * step.compute_s:.1f}, tiles {1000 * step.tiles_s:.1f}, captions "
            f"{1000 * step.captions_s:.1f}, gradients {1000 * step.gradients_s:.1f}), efficiency "
            f"{step.efficiency:.2f}, {rate:,.0f} pairs/s, {rate / section.decoded_per_core_s:,.0f} cores "
            f"to decode; 1,000,000 pairs x 5 epochs: {hours:.3f} h, "
            f"{hours * gpus * section.gpu_hour_price:.2f} USD"
        )
    return lines


def run_ranks(work: ScalingWork, rows: int, *, together: bool) -> Measurement:
    """Train on all ranks; the slowest rank counts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # import torch once, not once per rank
    with tempfile.TemporaryDirectory() as folder:
        results: Any = context.SimpleQueue()
        init_method = f"file://{folder}/rendezvous"
        ranks = [
            context.Process(target=_run_rank, args=(rank, init_method, work, rows, together, results))
            for rank in range(work.ranks)
        ]
        for process in ranks:
            process.start()
        rank_results = [results.get() for _ in ranks]
        for process in ranks:
            process.join()
    steps_s = np.array([seconds for seconds, _ in rank_results])
    slowest_s = float(steps_s.mean(axis=1).max())
    # Ranks that train together wait in every step for the slowest one.
    metrics = {"step_s": slowest_s, "slowest_step_s": float(steps_s.max(axis=0).mean())}
    if together and work.ranks > 1:
        metrics |= {
            "gloo_mb_per_s": min(gloo.bytes_per_s for _, gloo in rank_results) / 1e6,
            "gloo_ms": 1000 * max(gloo.latency_s for _, gloo in rank_results),
        }
    return Measurement(work.ranks * rows / slowest_s, metrics)


class GlooSpeed(NamedTuple):
    """Bandwidth and latency of one hop between local ranks."""

    bytes_per_s: float
    latency_s: float


def _run_rank(
    rank: int, init_method: str, work: ScalingWork, rows: int, together: bool, results: Any
) -> None:
    """Put this rank's seconds per step and its `GlooSpeed` (or None) into `results`."""
    torch.set_num_threads(1)
    # Lone ranks have a group, too: it lets them start at the same time.
    dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=work.ranks)
    gloo = _measure_gloo(work.ranks) if together and work.ranks > 1 else None
    if not together:
        dist.barrier()
        dist.destroy_process_group()
    results.put((_train(work, rows), gloo))
    if together:
        dist.barrier()
        dist.destroy_process_group()


def _train(work: ScalingWork, rows: int) -> list[float]:
    """Seconds of each step after the warm-up."""
    model = siglip.load_model(Path(work.encoder_uri)).train()
    batch: Batch = random_batch(model.config, work.image, work.max_length, rows)
    dual_encoder = DualEncoder(model, work.image)
    towers = (
        torch.nn.parallel.DistributedDataParallel(dual_encoder) if dist.is_initialized() else dual_encoder
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=work.section.learning_rate)
    ended = []
    for _ in range(work.num_warm_up + work.num_measured):
        backward(towers, batch, work.section)
        optimizer.step()
        optimizer.zero_grad()
        ended.append(time.perf_counter())
    return [after - before for before, after in pairwise(ended[work.num_warm_up - 1 :])]


def _measure_gloo(ranks: int) -> GlooSpeed:
    """Time a large all-reduce for the bandwidth and one of a single number for the latency."""
    large_s, small_s = (_all_reduce_s(num_bytes) for num_bytes in (_PROBE_BYTES, 4))
    hops = 2 * (ranks - 1)
    return GlooSpeed(hops / ranks * _PROBE_BYTES / (large_s - small_s), small_s / hops)


def _all_reduce_s(num_bytes: int) -> float:
    message = torch.zeros(num_bytes // 4)
    dist.all_reduce(message)
    started = time.perf_counter()
    for _ in range(_NUM_PROBES):
        dist.all_reduce(message)
    return (time.perf_counter() - started) / _NUM_PROBES


def _check(result: CaseResult) -> str:
    properties, together, alone = result.properties, result.contenders[TOGETHER], result.contenders[ALONE]
    ranks, rows = int(properties["ranks"]), int(properties["rows_per_rank"])
    load = RankLoad(
        rows,
        rows / alone.metrics["slowest_step_s"].median,
        properties["flops_per_pair"],
        int(properties["parameters"]),
        int(properties["dimensions"]),
    )
    gloo_mb_per_s, latency_ms = (together.metrics[name].median for name in ("gloo_mb_per_s", "gloo_ms"))
    bytes_per_s = gloo_mb_per_s * 1e6
    # The cores are busy with training, so communication does not overlap with computation.
    links = Links(ranks, bytes_per_s, bytes_per_s, latency_ms / 1000, overlap=0.0)
    step, measured_s = step_time(load, links, ranks), together.metrics["step_s"].median
    return (
        f"{result.case}, here: a step takes {1000 * measured_s:.1f} ms, predicted {1000 * step.total_s:.1f} "
        f"({100 * (step.total_s / measured_s - 1):+.0f} %): towers {1000 * step.compute_s:.1f}, "
        f"tiles {1000 * step.tiles_s:.1f}, captions {1000 * step.captions_s:.1f}, gradients "
        f"{1000 * step.gradients_s:.1f} (gloo: {gloo_mb_per_s:,.0f} MB/s, {latency_ms:.2f} ms per hop)"
    )


def _gpu_load(section: BenchConfig) -> RankLoad:
    import transformers

    config = siglip_b16_config()
    with torch.device("meta"):
        parameters = sum(p.numel() for p in transformers.SiglipModel(config).parameters())
    return RankLoad(
        section.gpu_batch_size,
        section.gpu_pairs_per_s,
        training_flops_per_pair(config),
        parameters,
        siglip.dimensions_of(config),
    )


def _gpu_links(section: BenchConfig) -> Links:
    return Links(
        section.gpus_per_node,
        section.node_gb_per_s * 1e9,
        section.network_gb_per_s * 1e9,
        section.hop_latency_s,
        section.gradient_overlap,
    )
