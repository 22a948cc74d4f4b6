"""Whether a cluster holds a training's workers."""

from __future__ import annotations

from raysys.config.schema import TrainConfig
from raysys.train.monitor.capacity import capacity_shortfall, max_num_workers

GPU, CPU = {"GPU": 1.0}, {"CPU": 1.0}


def test_worker_is_never_split_over_nodes() -> None:
    nodes = [{"CPU": 8.0, "GPU": 1.5}, {"CPU": 8.0, "GPU": 1.5}]
    assert max_num_workers(nodes, GPU) == 2
    assert max_num_workers([{"CPU": 3.0, "GPU": 8.0}, {"GPU": 1.0}], {"GPU": 1.0, "CPU": 2.0}) == 1


def test_cluster_that_is_large_enough_has_no_shortfall() -> None:
    section = TrainConfig(workers=4, batch_size=8, use_gpu=True)
    assert capacity_shortfall([{"CPU": 4.0}, {"GPU": 2.0}, {"GPU": 2.0}], GPU, section) is None


def test_shortfall_lists_the_nodes_and_the_remedies() -> None:
    section = TrainConfig(workers=4, batch_size=8, use_gpu=True)
    assert capacity_shortfall([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0}], GPU, section) == (
        "train.workers: 4 workers with 1 GPU each; the cluster has 2 nodes with 16, 8 CPUs and 2, 0 GPUs; "
        "lower train.workers, set train.use_gpu=false or add nodes"
    )


def test_elastic_run_needs_only_its_minimum_of_workers() -> None:
    section = TrainConfig(workers=8, min_workers=2, batch_size=8)
    assert capacity_shortfall([{"CPU": 2.0}], CPU, section) is None
    assert capacity_shortfall([{"CPU": 1.0}], CPU, section) == (
        "train.min_workers: 2 workers with 1 CPU each; the cluster has 1 node with 1 CPUs and 0 GPUs; "
        "lower train.min_workers or add nodes"
    )
