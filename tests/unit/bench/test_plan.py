"""A step's time on several ranks, worked out by hand."""

from __future__ import annotations

import pytest

from raysys.bench.plan import Links, RankLoad, step_time

# 100 pairs in a second; a tile is 6 x 100^2 x 10 = 600,000 FLOPs at 60 MFLOP/s: 10 ms.
LOAD = RankLoad(pairs=100, pairs_per_s=100.0, flops_per_pair=600_000.0, parameters=250_000, dimensions=10)
LINKS = Links(ranks_per_node=2, node_bytes_per_s=1e6, network_bytes_per_s=1e5, latency_s=0.0, overlap=0.5)


def test_one_rank_has_no_communication() -> None:
    step = step_time(LOAD, LINKS, 1)
    assert (step.total_s, step.efficiency) == (1.0, 1.0)


def test_fast_links_delay_only_the_exchange_of_gradients() -> None:
    # A hop is 4,000 bytes in 4 ms: one for the captions, one for their gradients.
    # All-reduce: 2 x 1/2 x 1 MB in 1 s; half of it overlaps with the 2/3 s of the backward pass.
    step = step_time(LOAD, LINKS, 2)
    assert step.tiles_s == pytest.approx(0.010)
    assert step.captions_s == pytest.approx(0.008)
    assert step.gradients_s == pytest.approx(0.5)
    assert step.efficiency == pytest.approx(1 / 1.518)


def test_two_nodes_run_at_the_speed_of_the_network() -> None:
    # A hop takes 40 ms: three for the captions, three for their gradients.
    # All-reduce: 2 x 3/4 x 1 MB in 15 s; half of it is more than the backward pass can hide.
    step = step_time(LOAD, LINKS, 4)
    assert step.captions_s == pytest.approx(0.24)
    assert step.gradients_s == pytest.approx(15 - 2 / 3)
