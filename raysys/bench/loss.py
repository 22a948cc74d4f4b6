"""The loss and its gradients over 1 to 8 ranks: pairs a second, and what each rank's memory grows by.

Ranks are processes that talk over gloo. The peer is what a trainer writes first, all captions gathered and
one table differentiated by autograd; where open_clip can be imported, it is open_clip's own loss. The limit
has no exchange: each rank compares as many pairs alone.
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

from raysys.bench.measure import Case, Finding, Trial
from raysys.config import Config
from raysys.config.schema import FalseNegativesConfig
from raysys.train.loss import Pairs, dense_loss, local_pairs, loss_and_gradients
from raysys.train.loss.exchange import Exchange
from raysys.train.loss.tiles import TiledLoss

RING, GATHER = "raysys, ring", "raysys, gather"
AUTOGRAD, LIMIT = "all-gather and autograd", "no exchange"
OPEN_CLIP = "open_clip.loss.SigLipLoss"
_PUBLISHED = FalseNegativesConfig(equal_titles="negative", same_group="negative")
_SCALE, _BIAS = 10.0, -10.0
_WARM_UP = 2


@dataclass(frozen=True)
class Work:
    """What every contender computes; sizes are those of one rank."""

    ranks: int
    rows: int
    dimensions: int
    tile_rows: int
    seconds: float


def cases(config: Config, folder: Path) -> Iterator[Case]:
    """Every number of ranks, with as many pairs a rank."""
    section = config.bench
    for ranks in section.loss_ranks:
        work = Work(
            ranks,
            section.loss_rows,
            section.loss_dimensions,
            config.train.loss_tile_rows,
            section.seconds / 3,
        )
        contenders: dict[str, Callable[[], Trial]] = {
            RING: partial(run_ranks, work, partial(_ours, exchange="ring")),
            GATHER: partial(run_ranks, work, partial(_ours, exchange="gather")),
            AUTOGRAD: partial(run_ranks, work, _autograd),
            LIMIT: partial(run_ranks, work, _alone),
        }
        if not why_no_open_clip():
            contenders[OPEN_CLIP] = partial(run_ranks, work, _open_clip, imports=("open_clip",))
        facts = {"ranks": ranks, "rows_a_rank": work.rows, "dimensions": work.dimensions}
        peer = OPEN_CLIP if OPEN_CLIP in contenders else AUTOGRAD
        yield Case(f"{ranks} rank{'s' if ranks > 1 else ''}", "pairs/s", contenders, peer, LIMIT, facts)


def conclusions(findings: Sequence[Finding]) -> list[str]:
    """How memory grows with the number of ranks, and whether open_clip was there."""
    first, last = findings[0], findings[-1]
    lines = [
        f"{name}: {first.contenders[name].figures['mb_a_rank'].median:.1f} MB a rank with "
        f"{first.facts['ranks']:.0f}, {last.contenders[name].figures['mb_a_rank'].median:.1f} MB with "
        f"{last.facts['ranks']:.0f}"
        for name in last.contenders
    ]
    missing = why_no_open_clip()
    return [*lines, f"{OPEN_CLIP}: not measured, {missing}"] if missing else lines


def why_no_open_clip() -> str:
    """Why open_clip cannot be measured here; empty if it can."""
    try:
        importlib.import_module("open_clip")
    except (ImportError, RuntimeError) as error:
        return f"`import open_clip` says: {str(error).splitlines()[0]}"
    return ""


def run_ranks(
    work: Work, step: Callable[[Work, Tensor, Tensor], Any], imports: tuple[str, ...] = ()
) -> Trial:
    """Let all ranks take the step again and again; the slowest counts. Its `imports` are no growth of it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *imports])  # the ranks of a turn do not import torch one by one
    with tempfile.TemporaryDirectory() as folder:
        results: Any = context.SimpleQueue()
        ranks = [
            context.Process(
                target=_run_rank, args=(rank, f"file://{folder}/meeting", work, step, imports, results)
            )
            for rank in range(work.ranks)
        ]
        for process in ranks:
            process.start()
        found = [results.get() for _ in ranks]
        for process in ranks:
            process.join()
    slowest_s, most_bytes = (max(values) for values in zip(*found, strict=True))
    return Trial(work.ranks * work.rows / slowest_s, {"mb_a_rank": most_bytes / 1e6})


def _run_rank(
    rank: int,
    meeting: str,
    work: Work,
    step: Callable[[Work, Tensor, Tensor], Any],
    imports: tuple[str, ...],
    results: Any,
) -> None:
    torch.set_num_threads(1)
    for name in imports:
        importlib.import_module(name)
    warnings.simplefilter("ignore", FutureWarning)  # torch would rather have another all-gather of the peer
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=work.ranks)
    generator = torch.Generator().manual_seed(rank)
    images, captions = (
        torch.nn.functional.normalize(
            torch.randn(work.rows, work.dimensions, generator=generator), dim=-1
        ).requires_grad_()
        for _ in range(2)
    )
    _forget_peak()
    before = _memory("VmRSS")
    for _ in range(_WARM_UP):
        step(work, images, captions)
    grown = max(_memory("VmHWM") - before, 1)
    done, began = 0, time.perf_counter()
    while _go_on(time.perf_counter() - began < work.seconds):
        step(work, images, captions)
        done += 1
    results.put(((time.perf_counter() - began) / done, grown))
    dist.barrier()
    dist.destroy_process_group()


def _go_on(is_time_left: bool) -> bool:
    """Rank 0 decides for all."""
    said = torch.tensor([int(is_time_left)])
    dist.broadcast(said, src=0)
    return bool(said)


def _ours(work: Work, images: Tensor, captions: Tensor, *, exchange: Exchange) -> Any:
    return loss_and_gradients(
        _pairs(work, images, captions, dist.get_rank(), work.ranks),
        _PUBLISHED,
        scale=torch.tensor(_SCALE),
        bias=torch.tensor(_BIAS),
        num_images=work.rows * work.ranks,
        tile_rows=work.tile_rows,
        exchange=exchange,
    )


def _autograd(work: Work, images: Tensor, captions: Tensor) -> Any:
    gathered: Any = captions
    if work.ranks > 1:
        gathered = torch.cat(torch.distributed.nn.functional.all_gather(captions))
    left = _pairs(work, images, captions, dist.get_rank(), work.ranks)
    right = _pairs(work, gathered, gathered, 0, work.ranks)
    scale, bias = (torch.tensor(value, requires_grad=True) for value in (_SCALE, _BIAS))
    loss = dense_loss(left, right, _PUBLISHED, scale=scale, bias=bias, num_images=work.rows * work.ranks)
    return torch.autograd.grad(loss, (images, captions, scale, bias))


def _alone(work: Work, images: Tensor, captions: Tensor) -> Any:
    own = _pairs(work, images, captions, 0, 1)
    tiles = TiledLoss(
        own,
        _PUBLISHED,
        scale=torch.tensor(_SCALE),
        bias=torch.tensor(_BIAS),
        num_images=work.rows,
        tile_rows=work.tile_rows,
    )
    with torch.no_grad():
        for _ in range(work.ranks):
            tiles.add(own)


def _open_clip(work: Work, images: Tensor, captions: Tensor) -> Any:
    open_clip = importlib.import_module("open_clip")
    loss_of = open_clip.loss.SigLipLoss(rank=dist.get_rank(), world_size=work.ranks)
    scale, bias = (torch.tensor(value, requires_grad=True) for value in (_SCALE, _BIAS))
    loss = loss_of(images, captions, scale, bias)
    return torch.autograd.grad(loss, (images, captions, scale, bias))


def _pairs(work: Work, images: Tensor, captions: Tensor, rank: int, ranks: int) -> Pairs:
    """The pairs of a rank, all of them different; those of all ranks if that many vectors are given."""
    everyone = torch.arange(1, work.rows * ranks + 1)
    first = rank * work.rows
    own = everyone[first : first + len(images)]
    return local_pairs(images, captions, own, own, first_row=first, all_keys=everyone, all_groups=everyone)


def _forget_peak() -> None:
    """Let the kernel count the highest memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory(what: str) -> int:
    """Bytes, by the kernel's word for them (VmRSS now, VmHWM at most)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) * 1024
