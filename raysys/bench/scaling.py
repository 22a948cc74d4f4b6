"""What more GPUs would bring: a plan from given figures, and its check on processes of this machine.

Measured here are ranks that train the tiny model together over gloo, beside as many that train alone: their
cores and memory are shared alike, so the difference is the exchange's doing, of which steps of few pairs have
most. The plan's formulas are given the steps of those alone (the slowest of each round of them), gloo's pace
and its latency; their prediction stands beside what came out. The GPUs are planned, not measured:
`bench.gpu_pairs_per_s` and the links are what the configuration says.
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

from raysys.bench.measure import Case, Finding, Trial
from raysys.bench.plan import Links, Load, step_time
from raysys.bench.train import PAPER_PAIRS, Batch, base_config, random_batch
from raysys.config import Config
from raysys.config.schema import BenchConfig, TrainConfig
from raysys.encoder import siglip, start
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.synth import generate_items
from raysys.train.metrics.flops import training_flops_per_pair
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.step import backward

TOGETHER, ALONE = "together", "each alone"
_TITLES, _SEED = 2000, 7
_PROBE_BYTES, _PROBES = 8 << 20, 20
# Figures of the plan that go from the configuration through the facts to the conclusions.
_GIVEN = (
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
class Work:
    """What every rank trains, and for how many steps."""

    ranks: int
    encoder_uri: str
    image: ImagePreprocessing
    max_length: int
    section: TrainConfig
    num_warm_up: int
    num_measured: int


def cases(config: Config, folder: Path) -> Iterator[Case]:
    """Every number of ranks with steps of every size, together and each alone."""
    section, encoder = config.bench, folder / "encoder"
    start.fill_start(config.encoder, lambda: [item.title for item in generate_items(_TITLES, _SEED)])(encoder)
    model = siglip.load_model(encoder)
    for ranks, rows in product(section.scaling_ranks, section.scaling_rows):
        work = Work(
            ranks,
            str(encoder),
            siglip.image_preprocessing_of(encoder),
            start.text_preprocessing(config.encoder).max_length,
            config.train.model_copy(update={"micro_batch_size": None, "caption_weights": {}}),
            section.train_warm_up_steps,
            math.ceil(section.train_steps * max(section.scaling_rows) / rows),
        )
        contenders: dict[str, Callable[[], Trial]] = {
            TOGETHER: partial(run_ranks, work, rows, together=True),
            ALONE: partial(run_ranks, work, rows, together=False),
        }
        facts = {
            "ranks": ranks,
            "rows_a_rank": rows,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "dimensions": siglip.dimensions_of(model.config),
            "flops_per_pair": training_flops_per_pair(model.config),
            **{name: float(getattr(section, name)) for name in _GIVEN},
            **{f"plan_{number}": float(gpus) for number, gpus in enumerate(section.gpus)},
        }
        name = f"{ranks} rank{'s' if ranks > 1 else ''}, {rows} pairs each"
        yield Case(name, "pairs/s", contenders, ALONE, ALONE, facts)


def conclusions(findings: Sequence[Finding]) -> list[str]:
    """The check, rank by rank, then the plan, GPU by GPU."""
    checks = [_check(finding) for finding in findings if finding.facts["ranks"] > 1]
    facts = findings[0].facts
    given = BenchConfig.model_validate(
        {name: facts[name] for name in _GIVEN}
        | {"gpus": tuple(int(facts[name]) for name in facts if name.startswith("plan_"))}
    )
    return [*checks, *plan(given)]


def plan(section: BenchConfig) -> list[str]:
    """A line for each number of GPUs: SigLIP-B/16-256, and the paper's run on them."""
    load, links = _gpu_load(section), _gpu_links(section)
    lines = [
        f"plan, not measured: {section.gpu_pairs_per_s:,.0f} pairs/s of one GPU, {section.gpu_batch_size} "
        f"pairs a step, {section.node_gb_per_s:g} GB/s in a node of {section.gpus_per_node}, "
        f"{section.network_gb_per_s:g} GB/s between nodes, {section.gpu_hour_price:g} USD an hour of a GPU, "
        f"{section.decoded_per_core_s:g} photos/s a core: given by the configuration"
    ]
    for gpus in section.gpus:
        found = step_time(load, links, gpus)
        rate = gpus * load.pairs / found.seconds
        hours = PAPER_PAIRS / rate / 3600
        lines.append(
            f"{gpus} GPU{'s' if gpus > 1 else ''}: step {1000 * found.seconds:.1f} ms (towers "
            f"{1000 * found.compute_s:.1f}, tiles {1000 * found.tiles_s:.1f}, captions "
            f"{1000 * found.captions_s:.1f}, gradients {1000 * found.gradients_s:.1f}), efficiency "
            f"{found.efficiency:.2f}, {rate:,.0f} pairs/s, {rate / section.decoded_per_core_s:,.0f} cores "
            f"decode; 1,000,000 pairs x 5 epochs: {hours:.3f} h, "
            f"{hours * gpus * section.gpu_hour_price:.2f} USD"
        )
    return lines


def run_ranks(work: Work, rows: int, *, together: bool) -> Trial:
    """Let all ranks train; the slowest counts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # the ranks of a turn do not import torch one by one
    with tempfile.TemporaryDirectory() as folder:
        results: Any = context.SimpleQueue()
        meeting = f"file://{folder}/meeting"
        ranks = [
            context.Process(target=_run_rank, args=(rank, meeting, work, rows, together, results))
            for rank in range(work.ranks)
        ]
        for process in ranks:
            process.start()
        found = [results.get() for _ in ranks]
        for process in ranks:
            process.join()
    steps_s = np.array([seconds for seconds, _ in found])
    slowest_s = float(steps_s.mean(axis=1).max())
    # Those who train together wait in every step for the slowest of them.
    figures = {"step_s": slowest_s, "slowest_step_s": float(steps_s.max(axis=0).mean())}
    if together and work.ranks > 1:
        figures |= {
            "gloo_mb_per_s": min(gloo.bytes_per_s for _, gloo in found) / 1e6,
            "gloo_ms": 1000 * max(gloo.latency_s for _, gloo in found),
        }
    return Trial(work.ranks * rows / slowest_s, figures)


class Gloo(NamedTuple):
    """How ranks here are joined."""

    bytes_per_s: float
    latency_s: float


def _run_rank(rank: int, meeting: str, work: Work, rows: int, together: bool, results: Any) -> None:
    torch.set_num_threads(1)
    # Those alone have a group, too: it lets them start at the same time.
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=work.ranks)
    gloo = _probe_gloo(work.ranks) if together and work.ranks > 1 else None
    if not together:
        dist.barrier()
        dist.destroy_process_group()
    results.put((_train(work, rows), gloo))
    if together:
        dist.barrier()
        dist.destroy_process_group()


def _train(work: Work, rows: int) -> list[float]:
    """Seconds of each step behind the warm-up."""
    model = siglip.load_model(Path(work.encoder_uri)).train()
    batch: Batch = random_batch(model.config, work.image, work.max_length, rows)
    plain = DualEncoder(model, work.image)
    towers = torch.nn.parallel.DistributedDataParallel(plain) if dist.is_initialized() else plain
    optimizer = torch.optim.AdamW(model.parameters(), lr=work.section.learning_rate)
    ended = []
    for _ in range(work.num_warm_up + work.num_measured):
        backward(towers, batch, work.section)
        optimizer.step()
        optimizer.zero_grad()
        ended.append(time.perf_counter())
    return [after - before for before, after in pairwise(ended[work.num_warm_up - 1 :])]


def _probe_gloo(ranks: int) -> Gloo:
    """A hop of an all-reduce, by one of some megabytes and one of a single number."""
    large_s, small_s = (_all_reduce_s(num_bytes) for num_bytes in (_PROBE_BYTES, 4))
    hops = 2 * (ranks - 1)
    return Gloo(hops / ranks * _PROBE_BYTES / (large_s - small_s), small_s / hops)


def _all_reduce_s(num_bytes: int) -> float:
    message = torch.zeros(num_bytes // 4)
    dist.all_reduce(message)
    began = time.perf_counter()
    for _ in range(_PROBES):
        dist.all_reduce(message)
    return (time.perf_counter() - began) / _PROBES


def _check(finding: Finding) -> str:
    facts, together, alone = finding.facts, finding.contenders[TOGETHER], finding.contenders[ALONE]
    ranks, rows = int(facts["ranks"]), int(facts["rows_a_rank"])
    load = Load(
        rows,
        rows / alone.figures["slowest_step_s"].median,
        facts["flops_per_pair"],
        int(facts["parameters"]),
        int(facts["dimensions"]),
    )
    pace, latency_ms = (together.figures[name].median for name in ("gloo_mb_per_s", "gloo_ms"))
    # The cores are busy: nothing hides.
    links = Links(ranks, pace * 1e6, pace * 1e6, latency_ms / 1000, overlap=0.0)
    step, measured_s = step_time(load, links, ranks), together.figures["step_s"].median
    return (
        f"{finding.case}, here: a step takes {1000 * measured_s:.1f} ms, predicted {1000 * step.seconds:.1f} "
        f"({100 * (step.seconds / measured_s - 1):+.0f} %), of which towers {1000 * step.compute_s:.1f}, "
        f"tiles {1000 * step.tiles_s:.1f}, captions {1000 * step.captions_s:.1f}, gradients "
        f"{1000 * step.gradients_s:.1f} (gloo: {pace:,.0f} MB/s, {latency_ms:.2f} ms a hop)"
    )


def _gpu_load(section: BenchConfig) -> Load:
    import transformers

    config = base_config()
    with torch.device("meta"):
        parameters = sum(p.numel() for p in transformers.SiglipModel(config).parameters())
    return Load(
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
