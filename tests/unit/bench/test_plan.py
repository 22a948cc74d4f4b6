"""A step's time on several ranks, worked out by hand."""

from __future__ import annotations

import pytest

from raysys.bench.plan import Links, Load, step_time

# 100 pairs in a second; a tile is 6 x 100^2 x 10 = 600,000 FLOPs at 60 MFLOP/s: 10 ms.
LOAD = Load(pairs=100, pairs_per_s=100.0, flops_per_pair=600_000.0, parameters=250_000, dimensions=10)
LINKS = Links(ranks_per_node=2, node_bytes_per_s=1e6, network_bytes_per_s=1e5, latency_s=0.0, overlap=0.5)


def test_one_rank_exchanges_nothing() -> None:
    alone = step_time(LOAD, LINKS, 1)
    assert (alone.seconds, alone.efficiency) == (1.0, 1.0)


def test_a_node_of_two() -> None:
    # A hop is 4,000 bytes in 4 ms, less than a tile: only two hops of what captions felt count.
    # All-reduce: 2 x 1/2 x 1 MB in 1 s, of which half hides behind the 2/3 s of the backward pass.
    found = step_time(LOAD, LINKS, 2)
    assert found.tiles_s == pytest.approx(0.010)
    assert found.captions_s == pytest.approx(0.008)
    assert found.gradients_s == pytest.approx(0.5)
    assert found.efficiency == pytest.approx(1 / 1.518)


def test_beyond_a_node_the_network_sets_the_pace() -> None:
    # A hop takes 40 ms: 3 x (40 - 10) ms of captions under way, 4 x 40 ms of what they felt.
    # All-reduce: 2 x 3/4 x 1 MB in 15 s; half of it would be more than the backward pass can hide.
    found = step_time(LOAD, LINKS, 4)
    assert found.captions_s == pytest.approx(0.25)
    assert found.gradients_s == pytest.approx(15 - 2 / 3)
