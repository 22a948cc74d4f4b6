"""`map` as Ray tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import ray

from raysys.cluster import nodes, session
from raysys.config.schema import RayConfig
from raysys.parallel import Parallel, Piece, Result


def connected_map(section: RayConfig, *, num_gpus: int = 0) -> Parallel:
    """A `Parallel` that runs pieces as Ray tasks, each with so many GPUs; its first call connects to Ray."""

    def run(work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterable[Result]:
        session.connect(section)
        return _map_tasks(work, pieces, num_gpus)

    return run


def _map_tasks(work: Callable[[Piece], Result], pieces: Iterable[Piece], num_gpus: int) -> Iterable[Result]:
    """Results in the order of the pieces, with a bounded number of tasks in flight."""
    submit: Any = ray.remote(num_cpus=1, num_gpus=num_gpus)(_call).remote
    in_flight: list[Any] = []
    # Of this machine real cores, not Ray's logical CPUs: every new process first spends seconds on imports.
    limit = max(1, nodes.num_cores(nodes.alive_nodes()))
    for piece in pieces:
        if len(in_flight) >= limit:
            yield ray.get(in_flight.pop(0))
        in_flight.append(submit(work, piece))
    while in_flight:
        yield ray.get(in_flight.pop(0))


def _call(work: Callable[[Piece], Result], piece: Piece) -> Result:
    return work(piece)
