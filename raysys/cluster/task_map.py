"""`map` as Ray tasks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ray

from raysys.cluster import session
from raysys.config.schema import RayConfig
from raysys.parallel import Parallel, Piece, Result


def parallel_map(
    work: Callable[[Piece], Result], pieces: Sequence[Piece], num_gpus: float = 0.0
) -> Iterable[Result]:
    """`map(work, pieces)` as Ray tasks, in order, with a bounded number under way; `num_gpus` each."""
    submit: Any = ray.remote(num_cpus=1, num_gpus=num_gpus)(_call).remote
    under_way: list[Any] = []
    # Real cores, not logical ones: every worker process first spends seconds on imports.
    cores = len(ray.nodes()) * (os.cpu_count() or 1)
    limit = max(1, min(cores, int(ray.cluster_resources().get("CPU", 1))))
    for piece in pieces:
        if len(under_way) >= limit:
            yield ray.get(under_way.pop(0))
        under_way.append(submit(work, piece))
    while under_way:
        yield ray.get(under_way.pop(0))


def _call(work: Callable[[Piece], Result], piece: Piece) -> Result:
    return work(piece)


def connected_map(section: RayConfig, num_gpus: float = 0.0) -> Parallel:
    """`parallel_map` that connects to Ray when it is first called."""

    def run(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> Iterable[Result]:
        session.connect(section)
        return parallel_map(work, pieces, num_gpus)

    return run
