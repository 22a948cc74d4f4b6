"""The loss and its gradients over 1 to 8 ranks: pairs per second, and the memory that each rank needs for it.

Ranks are processes connected by gloo. The baseline is the simplest implementation: all captions gathered and
one table differentiated by autograd; where open_clip can be imported, it is open_clip's own loss. The limit
communicates nothing: each rank compares the same number of pairs alone.
"""

from __future__ import annotations

import importlib
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional
from torch import Tensor

from raysys.bench import open_clip
from raysys.bench.config import BenchRunConfig
from raysys.bench.measure import Case, CaseResult, Measurement
from raysys.config.schema import FalseNegativesConfig
from raysys.train.loss import Pairs, dense_loss, local_pairs, loss_and_gradients, tiled_loss

RAYSYS, AUTOGRAD, LIMIT = "raysys", "all-gather and autograd", "no exchange"
OPEN_CLIP = "open_clip.loss.SigLipLoss"
_AS_PUBLISHED = FalseNegativesConfig(equal_titles="negative", same_group="negative")
_SCALE, _BIAS = 10.0, -10.0
_WARM_UP_STEPS = 2


@dataclass(frozen=True)
class LossWork:
    """What every contender computes; sizes are per rank."""

    ranks: int
    rows: int
    dimensions: int
    tile_rows: int
    seconds: float


def cases(config: BenchRunConfig, folder: Path) -> Iterator[Case]:
    """One case per number of ranks; the pairs per rank stay the same."""
    section = config.bench
    for ranks in section.loss_ranks:
        work = LossWork(
            ranks,
            section.loss_rows,
            section.loss_dimensions,
            config.train.loss_tile_rows,
            section.seconds / 3,
        )
        contenders: dict[str, Callable[[], Measurement]] = {
            RAYSYS: partial(run_ranks, work, _raysys_loss),
            AUTOGRAD: partial(run_ranks, work, _autograd_loss),
            LIMIT: partial(run_ranks, work, _loss_without_exchange),
        }
        if not open_clip.import_failure():
            contenders[OPEN_CLIP] = partial(run_ranks, work, _open_clip_loss, imports=("open_clip",))
        properties = {"ranks": ranks, "rows_per_rank": work.rows, "dimensions": work.dimensions}
        baseline = OPEN_CLIP if OPEN_CLIP in contenders else AUTOGRAD
        name = f"{ranks} rank{'s' if ranks > 1 else ''}"
        yield Case(name, "pairs/s", contenders, baseline, LIMIT, properties)


def conclusions(results: Sequence[CaseResult]) -> list[str]:
    """How memory grows with the number of ranks, and why open_clip was not measured, if it was not."""
    first, last = results[0], results[-1]
    lines = [
        f"{name}: {first.contenders[name].metrics['mb_per_rank'].median:.1f} MB per rank with "
        f"{first.properties['ranks']:.0f}, {last.contenders[name].metrics['mb_per_rank'].median:.1f} MB with "
        f"{last.properties['ranks']:.0f}"
        for name in last.contenders
    ]
    reason = open_clip.import_failure()
    return [*lines, f"{OPEN_CLIP}: not measured, {reason}"] if reason else lines


def run_ranks(
    work: LossWork, step: Callable[[LossWork, Tensor, Tensor], Any], imports: tuple[str, ...] = ()
) -> Measurement:
    """Repeat the step on all ranks; the slowest rank counts.

    `imports` are imported first, so that the step's memory does not include them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *imports])  # import torch once, not once per rank
    with tempfile.TemporaryDirectory() as folder:
        results: Any = context.SimpleQueue()
        ranks = [
            context.Process(
                target=_run_rank, args=(rank, f"file://{folder}/rendezvous", work, step, imports, results)
            )
            for rank in range(work.ranks)
        ]
        for process in ranks:
            process.start()
        rank_results = [results.get() for _ in ranks]
        for process in ranks:
            process.join()
    slowest_s, most_bytes = (max(values) for values in zip(*rank_results, strict=True))
    return Measurement(work.ranks * work.rows / slowest_s, {"mb_per_rank": most_bytes / 1e6})


def _run_rank(
    rank: int,
    init_method: str,
    work: LossWork,
    step: Callable[[LossWork, Tensor, Tensor], Any],
    imports: tuple[str, ...],
    results: Any,
) -> None:
    """Put this rank's seconds per step and its memory growth in bytes into `results`."""
    torch.set_num_threads(1)
    for name in imports:
        importlib.import_module(name)
    warnings.simplefilter("ignore", FutureWarning)  # torch deprecates the all-gather that the baseline uses
    dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=work.ranks)
    generator = torch.Generator().manual_seed(rank)
    images, captions = (
        torch.nn.functional.normalize(
            torch.randn(work.rows, work.dimensions, generator=generator), dim=-1
        ).requires_grad_()
        for _ in range(2)
    )
    _reset_peak_memory()
    before = _memory_bytes("VmRSS")
    for _ in range(_WARM_UP_STEPS):
        step(work, images, captions)
    growth = max(_memory_bytes("VmHWM") - before, 1)
    num_steps, started = 0, time.perf_counter()
    while _broadcast_from_rank_0(time.perf_counter() - started < work.seconds):
        step(work, images, captions)
        num_steps += 1
    results.put(((time.perf_counter() - started) / num_steps, growth))
    dist.barrier()
    dist.destroy_process_group()


def _broadcast_from_rank_0(value: bool) -> bool:
    flag = torch.tensor([int(value)])
    dist.broadcast(flag, src=0)
    return bool(flag)


def _raysys_loss(work: LossWork, images: Tensor, captions: Tensor) -> Any:
    return loss_and_gradients(
        _pairs(work, images, captions, dist.get_rank(), work.ranks),
        _AS_PUBLISHED,
        scale=torch.tensor(_SCALE),
        bias=torch.tensor(_BIAS),
        num_images=work.rows * work.ranks,
        tile_rows=work.tile_rows,
    )


def _autograd_loss(work: LossWork, images: Tensor, captions: Tensor) -> Any:
    gathered: Any = captions
    if work.ranks > 1:
        gathered = torch.cat(torch.distributed.nn.functional.all_gather(captions))
    left = _pairs(work, images, captions, dist.get_rank(), work.ranks)
    right = _pairs(work, gathered, gathered, 0, work.ranks)
    scale, bias = (torch.tensor(value, requires_grad=True) for value in (_SCALE, _BIAS))
    loss = dense_loss(left, right, _AS_PUBLISHED, scale=scale, bias=bias, num_images=work.rows * work.ranks)
    return torch.autograd.grad(loss, (images, captions, scale, bias))


def _loss_without_exchange(work: LossWork, images: Tensor, captions: Tensor) -> Any:
    pairs = _pairs(work, images, captions, 0, 1)
    for _ in range(work.ranks):
        tiled_loss(
            pairs,
            pairs,
            _AS_PUBLISHED,
            scale=torch.tensor(_SCALE),
            bias=torch.tensor(_BIAS),
            num_images=work.rows,
            tile_rows=work.tile_rows,
        )


def _open_clip_loss(work: LossWork, images: Tensor, captions: Tensor) -> Any:
    compute_loss = open_clip.make_loss(rank=dist.get_rank(), world_size=work.ranks)
    scale, bias = (torch.tensor(value, requires_grad=True) for value in (_SCALE, _BIAS))
    loss = compute_loss(images, captions, scale, bias)
    return torch.autograd.grad(loss, (images, captions, scale, bias))


def _pairs(work: LossWork, images: Tensor, captions: Tensor, rank: int, ranks: int) -> Pairs:
    """The pairs of a rank, or of all ranks if `images` has all rows; captions and groups are distinct."""
    all_keys = torch.arange(1, work.rows * ranks + 1)
    first_row = rank * work.rows
    keys = all_keys[first_row : first_row + len(images)]
    return local_pairs(
        images, captions, keys, keys, first_row=first_row, all_keys=all_keys, all_groups=all_keys
    )


def _reset_peak_memory() -> None:
    """Reset the kernel's record of this process's peak memory (VmHWM)."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory_bytes(field: str) -> int:
    """A field of /proc/self/status: VmRSS (now) or VmHWM (peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024
