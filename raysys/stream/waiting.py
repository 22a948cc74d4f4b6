"""A stream that delivers nothing: how long it has been waited for, and what waits for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from raysys.errors import ClusterError
from raysys.tracking.logs import log

ADVICE = (
    "if CPUs are missing, stop other work on the cluster or lower stream.decode_concurrency; "
    "if the data are slow, raise stream.first_batch_timeout_s"
)
# What an operator of Ray Data does, by a part of its name.
_ACTIVITIES = {
    "ReadReads": "reading",
    "Repartition": "repartitioning",
    "_Decoder": "decoding",
    "EmbeddingActor": "embedding",
}


class OperatorState(NamedTuple):
    """The state of an operator of a running Ray Data pipeline."""

    name: str
    num_tasks: int
    """Submitted and not finished; without a free CPU they wait in Ray."""
    num_queued: int
    """Blocks that wait for a task."""
    num_actors: int
    num_starting_actors: int


@dataclass(frozen=True)
class StreamWait:
    """Consumers have waited `seconds` for a stream."""

    seconds: float
    is_first: bool
    """Nothing has been delivered so far."""
    text: str
    """What waits for what."""


class WaitListener(Protocol):
    """Receives what a stream waits for. It is copied to the process that executes the stream."""

    def waiting(self, wait: StreamWait) -> None:
        """Called every few seconds while consumers wait. A RaysysError ends the stream."""
        ...

    def warn(self, line: str) -> None:
        """Called with a warning of Ray Data about a stream that consumers wait for."""
        ...


class WaitInDriver:
    """For a stream that is read in the driver: an error before the first block, later a warning per wait."""

    def __init__(self, stage: str, timeout_s: float) -> None:
        self._stage, self._timeout_s = stage, timeout_s
        self._reported_s = 0.0  # of the present wait

    def waiting(self, wait: StreamWait) -> None:
        """Raises: ClusterError if the first block does not arrive within the time limit."""
        if wait.seconds < self._reported_s:
            self._reported_s = 0.0
        if wait.seconds < self._timeout_s or self._reported_s:
            return
        self._reported_s = wait.seconds
        if wait.is_first:
            raise ClusterError(first_batch_line(self._stage, wait.seconds, wait.text))
        log.warning("%9s  no data for %.0f s: %s", self._stage, wait.seconds, wait.text)

    def warn(self, line: str) -> None:
        """Log the line."""
        log.warning("%9s  %s", self._stage, line)


class WaitClock:
    """Measures how long consumers have waited for the next output."""

    def __init__(self, now_s: float) -> None:
        self._since_s, self._num_outputs = now_s, 0

    def waited_s(self, now_s: float, *, num_outputs: int, is_awaited: bool) -> float:
        """Seconds since the last output, or since consumers began to wait for the next one."""
        if num_outputs != self._num_outputs or not is_awaited:
            self._since_s, self._num_outputs = now_s, num_outputs
        return now_s - self._since_s


def first_batch_line(stage: str, seconds: float, text: str) -> str:
    """The message of the error that ends a run without a first batch."""
    return f"{stage}: no batch within {seconds:.0f} s (stream.first_batch_timeout_s): {text}; {ADVICE}"


def describe_wait(operators: Sequence[OperatorState], free_cpus: float, cpus: float) -> str:
    """`reading: 1 task, 7 queued; decoding: 2 of 2 actors running, 0 tasks, ..; 0 of 2 CPUs .. are free`."""
    return "; ".join([*map(_describe, operators), f"{free_cpus:g} of {cpus:g} CPUs of the cluster are free"])


def _describe(operator: OperatorState) -> str:
    # Ray Data may fuse operators: their names are joined.
    activity = " and ".join(words for part, words in _ACTIVITIES.items() if part in operator.name)
    total = operator.num_actors + operator.num_starting_actors
    actors = f"{operator.num_actors} of {total} actors running, " if total else ""
    tasks = f"{operator.num_tasks} task{'' if operator.num_tasks == 1 else 's'}"
    return f"{activity or operator.name}: {actors}{tasks}, {operator.num_queued} queued"
