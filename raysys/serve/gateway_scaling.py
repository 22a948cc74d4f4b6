"""How many gateways there are, with `serve.max_gateway_replicas`: as many as their work takes.

Ray Serve's own policy counts requests in progress, in the event loop that works on them. It sees few, even
when a gateway can answer no more.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

POLICY = "raysys.serve.gateway_scaling:num_gateways"
BUSY = "busy"
"""The name of a gateway's metric."""
TARGET = 0.6  # of its time that a gateway is at work, on average


class _CpuTimes(NamedTuple):
    at_s: float
    event_loop_s: float
    process_s: float


class BusyTime:
    """The share of the time in which a gateway is at work: its event loop or its threads, the larger one.

    It is CPU time; `num_threads` are those that decode or those that search, the smaller number.
    """

    def __init__(self, num_threads: int) -> None:
        self._num_threads = min(num_threads, os.cpu_count() or 1)
        self._last: _CpuTimes | None = None

    def share(self) -> float:
        """The share since the last call, 0 at the first. The thread of the event loop is to call it."""
        last, now = self._last, _now()
        self._last = now
        if last is None:
            return 0.0
        event_loop_s = now.event_loop_s - last.event_loop_s
        threads_s = (now.process_s - last.process_s - event_loop_s) / self._num_threads
        return max(event_loop_s, threads_s) / max(now.at_s - last.at_s, 1e-9)


def num_gateways(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Ray Serve's autoscaling policy: so many that none is at work for more than the target.

    Ray applies the delays and the bounds of its configuration.
    """
    shares = (context.aggregated_metrics or {}).get(BUSY, {})
    return (sum(shares.values()) / TARGET if shares else context.target_num_replicas), {}


def _now() -> _CpuTimes:
    return _CpuTimes(time.monotonic(), time.thread_time(), time.process_time())
