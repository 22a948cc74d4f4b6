"""Predicted step time on N GPUs, from the speed of one GPU and the links between GPUs.

Collectives run in rings. A ring is as fast as its slowest link: on more than one node, the complete ring runs
at the network's speed.
"""

from __future__ import annotations

from dataclasses import dataclass

# Share of a step's FLOPs: a backward pass costs twice its forward pass (Kaplan et al. 2020).
_BACKWARD_SHARE = 2 / 3
_BYTES_PER_VALUE = 4  # embeddings and gradients are sent as float32
_SMALL_GATHERS = 2  # of caption and group keys, and of the rows' integers for the loss


@dataclass(frozen=True)
class RankLoad:
    """The work of one rank in a step."""

    pairs: int
    pairs_per_s: float
    """Speed of one rank without communication."""
    flops_per_pair: float
    parameters: int
    dimensions: int


@dataclass(frozen=True)
class Links:
    """The links between ranks; bytes per second one way."""

    ranks_per_node: int
    node_bytes_per_s: float
    network_bytes_per_s: float
    latency_s: float
    overlap: float
    """Share of the gradient all-reduce that overlaps with the backward pass."""

    def bytes_per_s(self, ranks: int) -> float:
        """Bandwidth of the slowest link between `ranks` ranks."""
        return self.node_bytes_per_s if ranks <= self.ranks_per_node else self.network_bytes_per_s


@dataclass(frozen=True)
class StepTime:
    """A step's time by component; communication counts only where no computation overlaps with it."""

    compute_s: float
    tiles_s: float
    captions_s: float
    gradients_s: float

    @property
    def total_s(self) -> float:
        """Time of the complete step."""
        return self.compute_s + self.tiles_s + self.captions_s + self.gradients_s

    @property
    def efficiency(self) -> float:
        """Pairs per second and rank, relative to one rank without communication."""
        return self.compute_s / self.total_s


def step_time(load: RankLoad, links: Links, ranks: int) -> StepTime:
    """A step of `ranks` ranks: captions are gathered, their gradients and the weights' are summed."""
    compute = load.pairs / load.pairs_per_s
    if ranks == 1:
        return StepTime(compute, 0.0, 0.0, 0.0)
    hop = links.latency_s + load.pairs * load.dimensions * _BYTES_PER_VALUE / links.bytes_per_s(ranks)
    # An all-gather and a reduce-scatter of one block per rank, without overlap. Of the small gathers only the
    # latency counts.
    captions = 2 * (ranks - 1) * hop + _SMALL_GATHERS * (ranks - 1) * links.latency_s
    tiles = (ranks - 1) * _tile_s(load)
    return StepTime(compute, tiles, captions, _gradients_s(load, links, ranks, compute))


def _tile_s(load: RankLoad) -> float:
    """One rank's photos against one rank's captions: three matrix products at the towers' FLOP/s."""
    return 6 * load.pairs**2 * load.dimensions / (load.flops_per_pair * load.pairs_per_s)


def _gradients_s(load: RankLoad, links: Links, ranks: int, compute_s: float) -> float:
    """The part of the all-reduce that the backward pass does not hide.

    A ring all-reduce of W ranks sends 2 (W - 1) messages, each 1/W of the gradients.
    """
    sent_bytes = 2 * (ranks - 1) / ranks * load.parameters * _BYTES_PER_VALUE
    all_reduce = sent_bytes / links.bytes_per_s(ranks) + 2 * (ranks - 1) * links.latency_s
    return all_reduce - min(links.overlap * all_reduce, _BACKWARD_SHARE * compute_s)
