"""Whether processes that run at the same time fit the nodes of a cluster together."""

from __future__ import annotations

import pytest

from raysys.cluster.capacity import Demand, Node, num_cores, place, shortfall

CPU, GPU, BOTH = {"CPU": 1.0}, {"GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}
POD = Node("10.0.0.1", {"CPU": 96.0, "GPU": 8.0})


def nodes(*resources: tuple[float, float]) -> list[Node]:
    return [Node(f"10.0.0.{n}", {"CPU": cpus, "GPU": gpus}) for n, (cpus, gpus) in enumerate(resources)]


def demand(count: int, each: dict[str, float], *alternatives: str, noun: str = "decoder") -> Demand:
    return Demand(count, noun, f"some.{noun}s", each, alternatives)


def test_process_is_never_split_over_nodes() -> None:
    assert place(nodes((8, 1.5), (8, 1.5)), [demand(4, GPU)]).counts == [2]
    assert place(nodes((3, 8), (0, 1)), [demand(9, {"GPU": 1.0, "CPU": 2.0})]).counts == [1]


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        ([demand(8, GPU), demand(88, CPU), demand(8, CPU)], True),  # a worker with a GPU holds no CPU: 96
        ([demand(8, GPU), demand(88, CPU), demand(9, CPU)], False),
        ([demand(8, BOTH), demand(80, CPU), demand(8, CPU)], True),
        ([demand(8, BOTH), demand(81, CPU), demand(8, CPU)], False),
        ([demand(9, GPU)], False),
    ],
)
def test_sum_of_all_processes_must_fit(asked: list[Demand], fits: bool) -> None:
    assert (shortfall([POD], asked, is_local=False) is None) == fits


def test_processes_without_gpu_prefer_nodes_without_gpu() -> None:
    placement = place(nodes((4, 1), (4, 0)), [demand(4, CPU), demand(1, {"CPU": 4.0, "GPU": 1.0})])
    assert placement.counts == [4, 1]
    assert placement.left == [{"CPU": 0.0, "GPU": 0.0}, {"CPU": 0.0, "GPU": 0.0}]


def test_shortfall_lists_the_sum_the_nodes_and_the_remedies() -> None:
    asked = [demand(8, GPU, noun="worker"), demand(16, CPU, noun="reader"), demand(96, CPU, "set it to null")]
    assert shortfall([POD], asked, is_local=False) == (
        "8 workers (some.workers) with 1 GPU each, 16 readers (some.readers) with 1 CPU each, "
        "96 decoders (some.decoders) with 1 CPU each need 112 CPUs and 8 GPUs together; "
        "the cluster has 1 node with 96 CPUs and 8 GPUs; "
        "lower some.decoders to 80, or set it to null, or add nodes"
    )


def test_processes_before_one_that_cannot_be_lowered_leave_room() -> None:
    asked = [demand(2, CPU, noun="worker"), demand(1, CPU)]
    line = shortfall(nodes((2, 0)), asked, is_local=True)
    assert line is not None
    assert line.endswith("1 node with 2 CPUs and 0 GPUs; lower some.workers, or raise ray.num_cpus")


def test_missing_gpus_are_not_a_matter_of_ray_num_cpus() -> None:
    line = shortfall(nodes((8, 0)), [demand(1, GPU, "set some.use_gpu=false")], is_local=True)
    assert line is not None
    assert line.endswith("; set some.use_gpu=false")
    line = shortfall(nodes((8, 2), (16, 0)), [demand(4, GPU)], is_local=False)
    assert line is not None
    assert line.endswith("2 nodes with 8, 16 CPUs and 2, 0 GPUs; lower some.decoders to 2, or add nodes")


def test_logical_cpus_of_this_machine_count_as_its_cores() -> None:
    here, there = Node("10.0.0.1", {"CPU": 8.0}), Node("10.0.0.2", {"CPU": 96.0})
    assert num_cores([here], here="10.0.0.1", cores_here=2) == 2
    assert num_cores([here, there], here="10.0.0.1", cores_here=2) == 98
    assert num_cores([here, there], here="10.0.0.1", cores_here=64) == 104
    # a head of a cluster without CPUs for tasks
    assert num_cores([Node("10.0.0.1", {}), there], here="10.0.0.1", cores_here=64) == 96
