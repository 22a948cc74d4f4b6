"""The resources of a training's workers."""

from __future__ import annotations

import pytest

from raysys.cluster.capacity import Demand, Node
from raysys.config.schema import TrainConfig
from raysys.train.monitor.capacity import worker_demand

GPU, CPU = {"GPU": 1.0}, {"CPU": 1.0}


def nodes(*cpus: float) -> list[Node]:
    return [Node("10.0.0.1", {"CPU": each}) for each in cpus]


def test_worker_holds_a_gpu_or_a_cpu() -> None:
    assert worker_demand(TrainConfig(workers=4, batch_size=8), nodes(2.0)) == Demand(
        4, "training worker", "train.workers", CPU
    )
    assert worker_demand(TrainConfig(workers=4, batch_size=8, use_gpu=True), []) == Demand(
        4, "training worker", "train.workers", GPU, ("set train.use_gpu=false",)
    )


@pytest.mark.parametrize(
    ("cpus", "count", "setting"),
    [
        ((1.0,), 2, "train.min_workers"),
        ((2.0,), 2, "train.min_workers"),
        ((3.0, 2.5), 5, "train.workers"),  # they would hold every CPU
        ((20.0,), 8, "train.workers"),
    ],
)
def test_elastic_run_takes_all_workers_that_fit(cpus: tuple[float, ...], count: int, setting: str) -> None:
    demand = worker_demand(TrainConfig(workers=8, min_workers=2, batch_size=8), nodes(*cpus))
    assert (demand.count, demand.setting) == (count, setting)
