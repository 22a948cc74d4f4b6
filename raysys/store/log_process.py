"""Starts a process that runs the SQL of a log (`log_server.py`), and reads a log in one.

SQL in Python, in a thread of a process that answers queries, holds up these queries: the thread waits for the
interpreter again after each call of the database, and each time the queries wait for it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Collection
from typing import Any, NamedTuple

from raysys.config.store import without_password
from raysys.errors import StoreFailed
from raysys.store.changes import LoggedChange
from raysys.store.messages import OpenLog, after_line, answer_of, at_line, line_of, logged_of

_RECEIVED_BYTES = 1 << 20


class LogProcess(NamedTuple):
    """A process, and the socket to it; it ends when that is closed."""

    process: subprocess.Popen[bytes]
    socket: socket.socket

    def end(self) -> None:
        """End it, and wait for it."""
        self.socket.close()
        self.process.kill()
        self.process.wait()


def start_log_process(log: OpenLog) -> LogProcess:
    """Start a process, and wait until it has opened the log.

    Raises: as `ChangeLog`, and StoreFailed if it cannot be started.
    """
    started = _started(log)
    try:
        _ask(started.socket, line_of(log))
    except ConnectionError as error:
        started.end()
        raise process_ended(log) from error
    except BaseException:
        started.end()
        raise
    return started


def _started(log: OpenLog) -> LogProcess:
    own, other = socket.socketpair()
    with other:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "raysys.store.log_server"],
                stdin=other.fileno(),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C in a terminal is for `raysys serve`
            )
        except OSError as error:
            own.close()
            raise StoreFailed(
                f"{without_password(log.url)}: no process can be started that reads or writes it "
                f"({error.strerror}); end others on this node, or free memory, then repeat the request"
            ) from error
    return LogProcess(process, own)


class LogReader:
    """Reads a log in another process, for one thread; the process is started again if it ends.

    Raises: as `ChangeLog`, and StoreFailed if the process ends: the next call starts another one.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._log = OpenLog(url, timeout_s)
        self._started: LogProcess | None = start_log_process(self._log)

    def after(self, sequence: int, space_id: str, limit: int) -> list[LoggedChange]:
        """As `ChangeLog.after`."""
        return logged_of(self._answer(after_line(sequence, space_id, limit)), space_id)

    def at(self, sequences: Collection[int], space_id: str) -> list[LoggedChange]:
        """As `ChangeLog.at`."""
        return logged_of(self._answer(at_line(sequences, space_id)), space_id) if sequences else []

    def close(self) -> None:
        """End the process."""
        if self._started is not None:
            self._started.end()

    def _answer(self, line: bytes) -> Any:
        self._started = self._started or start_log_process(self._log)
        try:
            return _ask(self._started.socket, line)
        except ConnectionError as error:
            self._started.end()
            self._started = None
            raise process_ended(self._log) from error


def process_ended(log: OpenLog) -> StoreFailed:
    """The error of a call whose process ended."""
    return StoreFailed(
        f"{without_password(log.url)}: the process that reads or writes it ended; see the server's log, "
        "then repeat the request"
    )


def _ask(connection: socket.socket, line: bytes) -> Any:
    """The answer to the only line that waits for one. Raises: its error; ConnectionError if there is none."""
    connection.sendall(line)
    received = b""
    while not received.endswith(b"\n"):
        data = connection.recv(_RECEIVED_BYTES)
        if not data:
            raise ConnectionResetError
        received += data
    return answer_of(received)
