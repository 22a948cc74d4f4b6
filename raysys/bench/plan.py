"""What a step takes on so many GPUs, from what one of them does alone and how they are joined.

A ring is as fast as its slowest link: beyond a node, all of it goes at the network's pace.
"""

from __future__ import annotations

from dataclasses import dataclass

# Of a step's arithmetic: a backward pass is twice its forward (Kaplan et al. 2020).
_BACKWARD = 2 / 3
_BYTES = 4  # vectors and gradients travel as float32
_GATHERS = 2


@dataclass(frozen=True)
class Load:
    """What each rank does in a step."""

    pairs: int
    pairs_per_s: float
    """Of a rank that trains alone."""
    flops_per_pair: float
    parameters: int
    dimensions: int


@dataclass(frozen=True)
class Links:
    """How ranks are joined; bytes a second one way."""

    ranks_per_node: int
    node_bytes_per_s: float
    network_bytes_per_s: float
    latency_s: float
    overlap: float
    """Share of the gradients' exchange that can hide behind the backward pass."""

    def bytes_per_s(self, ranks: int) -> float:
        """Of the slowest link among so many."""
        return self.node_bytes_per_s if ranks <= self.ranks_per_node else self.network_bytes_per_s


@dataclass(frozen=True)
class StepTime:
    """Where a step's seconds go; exchanges count with what nothing hides."""

    compute_s: float
    tiles_s: float
    captions_s: float
    gradients_s: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.compute_s + self.tiles_s + self.captions_s + self.gradients_s

    @property
    def efficiency(self) -> float:
        """Pairs a second of a rank, as a share of what it does alone."""
        return self.compute_s / self.seconds


def step_time(load: Load, links: Links, ranks: int) -> StepTime:
    """A step of `ranks` that exchange captions by `loss_exchange: ring`, gradients by a ring all-reduce."""
    compute = load.pairs / load.pairs_per_s
    if ranks == 1:
        return StepTime(compute, 0.0, 0.0, 0.0)
    tile = _tile_s(load)
    hop = links.latency_s + load.pairs * load.dimensions * _BYTES / links.bytes_per_s(ranks)
    # A block of captions travels while the one before is compared; what it felt follows, and hides nowhere.
    captions = (ranks - 1) * max(0.0, hop - tile) + ranks * hop
    # Before them keys and groups of all rows are gathered: numbers, which cost their hops alone.
    captions += _GATHERS * (ranks - 1) * links.latency_s
    return StepTime(compute, (ranks - 1) * tile, captions, _gradients_s(load, links, ranks, compute))


def _tile_s(load: Load) -> float:
    """Every image of a rank with one rank's captions: three products, at the pace of the towers'."""
    return 6 * load.pairs**2 * load.dimensions / (load.flops_per_pair * load.pairs_per_s)


def _gradients_s(load: Load, links: Links, ranks: int, compute_s: float) -> float:
    """What the backward pass does not hide of 2 (W - 1) messages of 1/W of the gradients each."""
    moved = 2 * (ranks - 1) / ranks * load.parameters * _BYTES
    exchange = moved / links.bytes_per_s(ranks) + 2 * (ranks - 1) * links.latency_s
    return exchange - min(links.overlap * exchange, _BACKWARD * compute_s)
