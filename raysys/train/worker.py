"""What a worker has for the whole attempt, whether it trains or measures."""

from __future__ import annotations

from dataclasses import dataclass

from accelerate import Accelerator

from raysys.train.job import TrainJob
from raysys.train.monitor.consensus import StepConsensus
from raysys.train.monitor.heartbeat import Heartbeat


@dataclass(frozen=True)
class Worker:
    """The run, this worker's device and process group, and its exchange with other workers and the driver."""

    job: TrainJob
    accelerator: Accelerator
    consensus: StepConsensus
    heartbeat: Heartbeat
