"""The actor through which the driver and the workers of a run exchange status and requests.

It runs on the driver's node: the run ends with that node anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raysys.errors import ClusterError, RaysysError
from raysys.stream.waiting import StreamWait, first_batch_line
from raysys.train.monitor.stall import LastHeartbeat, WorkerStatus, first_batch_wait_s, is_running, stall_line

_STALL_SHARE = 0.8  # of the collective timeout: the stall is reported before the waiting ranks fail
_SILENT_S = 5.0  # a worker without a heartbeat for longer is not running
_STREAM_STATE_S = 15.0  # how long a report of what the stream waits for is true
_GIVE_UP_TIMEOUT_S = 5.0  # how long the first rank that gives up waits for the others


@dataclass(frozen=True)
class RunStatus:
    """The state of a run for the driver, with the log lines that it has not received yet."""

    lines: list[str]
    stall: str | None
    fatal_error: RaysysError | None
    is_running: bool


class RunCoordinator:
    """One instance a run, as an asynchronous Ray actor."""

    def __init__(
        self,
        collective_timeout_s: float,
        first_batch_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stall_after_s, self._clock = _STALL_SHARE * collective_timeout_s, clock
        self._first_batch_timeout_s = first_batch_timeout_s
        self._stream, self._stream_reported_s = "", -_STREAM_STATE_S
        self._stop, self._all_gave_up = asyncio.Event(), asyncio.Event()
        self._heartbeats: dict[int, LastHeartbeat] = {}
        self._lines: list[str] = []
        self._fatal_error: RaysysError | None = None
        self._num_gave_up = 0
        self._logged_once: set[str | None] = set()

    async def request_stop(self) -> None:
        """Ask the workers to stop after their step, with a checkpoint."""
        self._stop.set()

    async def wait_for_stop_request(self) -> bool:
        """Return True once a stop was requested."""
        await self._stop.wait()
        return True

    async def is_over(self) -> bool:
        """Whether a worker that starts has nothing left to do."""
        return self._stop.is_set() or self._fatal_error is not None

    async def heartbeat(self, status: WorkerStatus) -> None:
        """Record the status of a worker."""
        now, last = self._clock(), self._heartbeats.get(status.rank)
        unchanged_since = last.unchanged_since_s if last and last.status == status else now
        self._heartbeats[status.rank] = LastHeartbeat(status, now, unchanged_since)

    async def stream_waits(self, text: str) -> None:
        """Record what the stream waits for."""
        self._stream, self._stream_reported_s = text, self._clock()

    async def log(self, line: str, *, once: str | None = None) -> None:
        """Pass a line to the driver's log; of several with the same key `once`, only the first."""
        if once is None or once not in self._logged_once:
            self._lines.append(line)
        self._logged_once.add(once)

    async def give_up(self, error: RaysysError, world_size: int) -> bool:
        """Record why the run must end. True if all ranks gave up within seconds."""
        self._fatal_error = self._fatal_error or error
        self._num_gave_up += 1
        if self._num_gave_up >= world_size:
            self._all_gave_up.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_gave_up.wait(), _GIVE_UP_TIMEOUT_S)
        return self._all_gave_up.is_set()

    async def status(self) -> RunStatus:
        """For the driver; every log line is returned once."""
        now, heartbeats = self._clock(), list(self._heartbeats.values())
        lines, self._lines = self._lines, []
        stream = self._stream if now - self._stream_reported_s < _STREAM_STATE_S else ""
        waited_s = first_batch_wait_s(heartbeats, now, self._first_batch_timeout_s)
        is_alive = is_running(heartbeats, now, _SILENT_S)
        if waited_s is not None and is_alive and self._fatal_error is None:
            line = first_batch_line("train", waited_s, stream or "Ray Data reports no waiting stream")
            self._fatal_error = ClusterError(line)
            self._stop.set()  # all ranks are in the training loop and leave it together
        stall = stall_line(
            heartbeats, now, self._stall_after_s, data_after_s=self._first_batch_timeout_s, stream=stream
        )
        return RunStatus(
            lines=lines,
            stall=stall if self._fatal_error is None else None,
            fatal_error=self._fatal_error,
            is_running=is_alive,
        )


@dataclass(frozen=True)
class StreamReports:
    """Sends what the stream of a run waits for to its `RunCoordinator`, whose actor handle it has."""

    coordinator: Any

    def waiting(self, wait: StreamWait) -> None:
        """The coordinator knows how long the ranks have waited, and decides."""
        self.coordinator.stream_waits.remote(wait.text)

    def warn(self, line: str) -> None:
        """Pass a warning of Ray Data to the driver's log."""
        self.coordinator.log.remote(line)
