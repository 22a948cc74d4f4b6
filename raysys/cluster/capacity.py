"""Whether everything that runs at the same time fits a cluster, counted before it starts.

Ray waits for resources without a limit and without a message, so a sum that cannot fit is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Resources = Mapping[str, float]  # Ray's logical resources: {"CPU": 96.0, "GPU": 8.0}
_KINDS = ("CPU", "GPU")


class Node(NamedTuple):
    """A node of a cluster: its IP address and its logical resources."""

    address: str
    resources: Resources


@dataclass(frozen=True)
class Demand:
    """Processes that hold resources at the same time as those of the other demands."""

    count: int
    noun: str
    """In the singular: "decoder"."""
    setting: str
    """The setting that determines `count`."""
    each: Resources
    alternatives: tuple[str, ...] = ()
    """What else to change if they do not fit: "set train.use_gpu=false"."""


class Placement(NamedTuple):
    """How many processes of each demand fit, and what is left on each node."""

    counts: list[int]
    left: list[dict[str, float]]


def place(nodes: Sequence[Node], demands: Sequence[Demand]) -> Placement:
    """Place the demands in order; a process is never split over nodes.

    Processes without a GPU prefer nodes without GPUs, as Ray does.
    """
    left = [dict(node.resources) for node in sorted(nodes, key=lambda node: node.resources.get("GPU", 0.0))]
    counts = []
    for demand in demands:
        num_placed = 0
        for free in left:
            fits = min((int(free.get(kind, 0.0) / amount) for kind, amount in demand.each.items()), default=0)
            here = max(0, min(fits, demand.count - num_placed))
            for kind, amount in demand.each.items():
                free[kind] = free.get(kind, 0.0) - here * amount
            num_placed += here
        counts.append(num_placed)
    return Placement(counts, left)


def shortfall(nodes: Sequence[Node], demands: Sequence[Demand], *, is_local: bool) -> str | None:
    """One line if the demands do not fit the nodes together: the sum, the nodes, the remedy; else None.

    `is_local`: `ray.num_cpus` sets the CPUs of the cluster.
    """
    counts = place(nodes, demands).counts
    for index, (demand, fit) in enumerate(zip(demands, counts, strict=True)):
        if fit < demand.count:
            remedy = _remedy(demands, index, fit, is_local=is_local)
            return f"{_sum_of(demands)}; the cluster has {_describe(nodes)}; {remedy}"
    return None


def num_cores(nodes: Sequence[Node], *, here: str, cores_here: int) -> int:
    """The CPUs of the nodes; those at the address `here` have no more than this machine's cores together.

    A local cluster may have more logical CPUs than cores.
    """
    logical_here = sum(node.resources.get("CPU", 0.0) for node in nodes if node.address == here)
    elsewhere = sum(node.resources.get("CPU", 0.0) for node in nodes if node.address != here)
    return int(elsewhere + min(logical_here, cores_here))


def _remedy(demands: Sequence[Demand], index: int, fit: int, *, is_local: bool) -> str:
    short = demands[index]
    # A demand of one process cannot be lowered: then those before it have to leave room.
    lowered, limit = (short, fit) if short.count > 1 else (demands[0], 0)
    options = [f"lower {lowered.setting}" + (f" to {limit}" if limit else "")] if lowered.count > 1 else []
    options += short.alternatives
    if not is_local:
        options.append("add nodes")
    elif "GPU" not in short.each:
        options.append("raise ray.num_cpus")
    return ", or ".join(options) or "use a machine with more GPUs"


def _sum_of(demands: Sequence[Demand]) -> str:
    """`train.workers: 8 training workers with 1 GPU each, 96 decoders (..) ..: 112 CPUs and 8 GPUs`."""
    parts = []
    for demand in demands:
        each = " and ".join(_amount(amount, kind) for kind, amount in demand.each.items())
        plural = "s" if demand.count > 1 else ""
        parts.append(f"{demand.count} {demand.noun}{plural} ({demand.setting}) with {each} each")
    totals = [(sum(demand.count * demand.each.get(kind, 0.0) for demand in demands), kind) for kind in _KINDS]
    total = " and ".join(_amount(amount, kind) for amount, kind in totals if amount)
    return f"{', '.join(parts)} need {total} together"


def _describe(nodes: Sequence[Node]) -> str:
    if len(nodes) == 1:
        cpus, gpus = (_amount(nodes[0].resources.get(kind, 0.0), kind) for kind in _KINDS)
        return f"1 node with {cpus} and {gpus}"
    cpus, gpus = (", ".join(f"{node.resources.get(kind, 0.0):g}" for node in nodes) for kind in _KINDS)
    return f"{len(nodes)} nodes with {cpus or 0} CPUs and {gpus or 0} GPUs"


def _amount(amount: float, kind: str) -> str:
    return f"{amount:g} {kind}{'' if amount == 1 else 's'}"
