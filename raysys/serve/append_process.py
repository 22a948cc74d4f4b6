"""Appends changes to the log in another process, which a gateway waits for without a thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from raysys.errors import InputError, StoreFailed
from raysys.store.changes import Change
from raysys.store.log_process import LogProcess, process_ended, start_log_process
from raysys.store.messages import OpenLog, answer_of, append_line
from raysys.store.rows import checked_change
from raysys.tracking.logs import log

_TRIES = 2


class AppendProcess:
    """A log in another process, for appending; the process is started again if it ends.

    The constructor returns once the log is open. Must be used in one event loop.
    Raises: as `start_log_process`.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._log = OpenLog(url, timeout_s)
        self._started: LogProcess | None = start_log_process(self._log)
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def append(self, changes: Sequence[Change]) -> list[int]:
        """As `ChangeLog.append`; changes of calls that come meanwhile are stored together.

        Raises: also StoreFailed if the process ended, and did so again when the changes were repeated.
        """
        if not changes:
            return []
        line = append_line([checked_change(change) for change in changes])
        for _ in range(_TRIES):
            try:
                answer = await (await self._connected()).ask(line)
            except ConnectionError:
                log.warning("serve: the process that writes changes ended; it is started again")
            else:
                return list(answer_of(answer))
        raise process_ended(self._log)

    async def close(self) -> None:
        """End the process, and the calls that wait for it."""
        if self._started is not None:
            self._started.end()
        elif self._connection is not None:
            await self._connection.close()

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is None or self._connection.is_lost:
                started = self._started or await self._start_again()
                self._started = None
                _, self._connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(started), sock=started.socket
                )
            return self._connection

    async def _start_again(self) -> LogProcess:
        try:
            return await asyncio.to_thread(start_log_process, self._log)
        except InputError as error:  # it could be opened when the service was started
            raise StoreFailed(str(error)) from error


class _Connection(asyncio.Protocol):
    """Lines to a process, and its answers in the same order."""

    def __init__(self, process: LogProcess) -> None:
        self._process = process
        self._transport: Any = None
        self._received = b""
        self._answers: deque[asyncio.Future[bytes]] = deque()
        self._lost = asyncio.Event()

    async def ask(self, line: bytes) -> bytes:
        """The answer to a line. Raises: ConnectionError if the process ends."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._transport.write(line)
        return await answer

    @property
    def is_lost(self) -> bool:
        """Whether the process ended."""
        return self._lost.is_set()

    async def close(self) -> None:
        """End the process."""
        self._transport.abort()
        await self._lost.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio, as those below."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            answer = self._answers.popleft()
            if not answer.done():  # its request was cancelled
                answer.set_result(line)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost.set()
        self._process.end()
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(ConnectionResetError())
