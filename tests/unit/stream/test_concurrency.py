"""How many readers and decoders a stream has, and that they fit the cluster together with the processes that compute."""

from __future__ import annotations

import pytest

from raysys.cluster.capacity import Demand, Node, shortfall
from raysys.config.schema import StreamConfig
from raysys.stream.concurrency import Concurrency, choose_concurrency, concurrency_line, demands

OPEN = StreamConfig()


def workers(count: int, kind: str = "CPU") -> Demand:
    return Demand(count, "training worker", "train.workers", {kind: 1.0})


def encoders(count: int) -> Demand:
    return Demand(count, "encoder", "embed.actors", {"CPU": 1.0, "GPU": 1.0})


def chosen(
    cpus: float, compute: Demand, *, cores: int | None = None, section: StreamConfig = OPEN
) -> Concurrency:
    nodes = [Node("10.0.0.1", {"CPU": cpus, "GPU": 8.0})]
    return choose_concurrency(section, nodes, compute, cores=int(cpus) if cores is None else cores)


@pytest.mark.parametrize(
    ("cpus", "cores", "compute", "expected"),
    [
        (8, 2, workers(2), (2, 1)),  # the demo on two cores: the fewest decoders
        (8, 2, workers(1), (2, 1)),
        (8, 8, workers(2), (3, 2)),  # 8 - 2 workers - 1 = 5; two readers from 4 on
        (96, 96, workers(8, "GPU"), (78, 9)),  # 96 - 8 - 1 = 87; a ninth is 9
        (96, 96, encoders(8), (78, 9)),
        (16, 16, workers(1, "GPU"), (12, 2)),
        (4, 4, workers(2), (1, 1)),  # two more CPUs exist: one decoder less than the fewest
        (3, 2, workers(1), (1, 1)),
        (2, 2, workers(0), (1, 1)),
        (3, 3, workers(0), (2, 1)),
        (112, 112, workers(8, "GPU"), (92, 11)),
    ],
)
def test_rule_of_the_concurrency(cpus: int, cores: int, compute: Demand, expected: tuple[int, int]) -> None:
    assert chosen(cpus, compute, cores=cores) == expected


def test_configured_numbers_are_kept_and_open_ones_make_room() -> None:
    both = StreamConfig(decode_concurrency=5, read_concurrency=3)
    assert chosen(96, workers(8, "GPU"), section=both) == (5, 3)
    assert chosen(96, workers(8, "GPU"), section=StreamConfig(read_concurrency=20)) == (67, 20)
    # 96 - 92 decoders leave 4 of the 9 readers
    assert chosen(96, workers(8, "GPU"), section=StreamConfig(decode_concurrency=92)) == (92, 4)


@pytest.mark.parametrize("compute", [workers(1), workers(8), workers(8, "GPU"), encoders(8)])
def test_rule_fits_every_cluster_that_is_not_refused(compute: Demand) -> None:
    held = compute.count * compute.each.get("CPU", 0.0)
    for cpus in range(1, 130):
        nodes = [Node("10.0.0.1", {"CPU": float(cpus), "GPU": 8.0})]
        if shortfall(nodes, demands(OPEN, compute), is_local=False) is None:
            decoders, readers = choose_concurrency(OPEN, nodes, compute, cores=cpus)
            section = StreamConfig(decode_concurrency=decoders, read_concurrency=readers)
            assert shortfall(nodes, demands(section, compute), is_local=False) is None, cpus
        else:
            assert cpus < held + 2


def test_decoders_that_hold_every_cpu_are_refused() -> None:
    """The readers would wait for ever."""
    section = StreamConfig(decode_concurrency=2)
    line = shortfall(
        [Node("127.0.0.1", {"CPU": 2.0})],
        demands(section, Demand(0, "training worker", "train.workers", {"CPU": 1.0})),
        is_local=True,
    )
    assert line is not None
    assert line.endswith(
        "1 reader (stream.read_concurrency) with 1 CPU each, "
        "2 decoders (stream.decode_concurrency) with 1 CPU each need 3 CPUs together; "
        "the cluster has 1 node with 2 CPUs and 0 GPUs; "
        "lower stream.decode_concurrency to 1, or set it to null, or raise ray.num_cpus"
    )


def test_line_states_the_processes_and_the_cpus() -> None:
    line = concurrency_line(Concurrency(decoders=78, readers=9), workers(8, "GPU"), 96)
    assert line == "8 training workers, 9 readers and 78 decoders on 96 CPUs"
    assert concurrency_line(Concurrency(1, 1), workers(1), 3).startswith("1 training worker, 1 reader and")
