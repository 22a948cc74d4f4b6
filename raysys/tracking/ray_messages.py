"""Messages that Ray prints in the driver process, as log lines of raysys.

Ray prints warnings of the raylet on stdout, which carries only results, and its C++ code writes to file
descriptor 2. Each line becomes a log line on stderr; messages about normal operation become debug lines.
Ray Data logs paragraphs, also in other processes; `RayDataWarnings` collects those about a pipeline that
waits.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator

from raysys.tracking.logs import log

# Ray 2.60 prints these in every successful run on a small machine.
_NORMAL_OPERATION = re.compile(
    r"\d+ PYTHON worker processes have been started on node"
    r"|Task ServeController\.graceful_shutdown failed"  # the task ends when its actor is killed
    r"|has constructor arguments in the object store and max_restarts > 0"  # Ray Data's actor pools
)
_ANSI_COLOUR = re.compile(r"\x1b\[\d*m")
_SENDER = re.compile(r"^\((raylet|autoscaler|\w+ pid=\d+|pid=\d+)[^)]*\)\s*")
_CPP_PREFIX = re.compile(r"^\[[\d\- :,]+ [A-Z] \d+ \d+\] (\([\w-]+\) )?[\w.]+:\d+: ")
_FLUSH_TIMEOUT_S = 1.0

# Loggers of Ray Data that warn about a pipeline that waits, and what is passed on of their messages.
_WAITING_LOGGERS = (
    "ray.data._internal.execution.resource_manager",
    "ray.data._internal.execution.streaming_executor_state",
    "ray.data._internal.issue_detection.issue_detector_manager",
    "ray.data._internal.execution.operators.actor_pool_map_operator",
)
_RAY_DATA_WARNINGS = (
    (re.compile(r"Cluster resources are not enough to run any task from (.+?)\. The job"),
     "the free resources of the cluster do not suffice for a task of {0}"),
    (re.compile(r"Operator (.+?) is running but has no outputs for ([\d.]+) seconds"),
     "{0} has had no output for {1} s"),
    (re.compile(r"A task \(task_id=\w+\) of operator (\S+) (\(.*?\) )?has been running or stuck in "
                r"scheduling for ([\d.]+)s"),
     "a task of {0} {1}has run or waited for {2} s, much longer than the others"),
    (re.compile(r"(\S+): an actor died during initialization"), "an actor of {0} died while it started"),
)  # fmt: skip


class RayMessages(io.TextIOBase):
    """A replacement for `sys.stdout` that logs complete lines; safe to write to from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending = ""

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, text: str) -> int:
        """Log every line that `text` completes."""
        with self._lock:
            *lines, self._pending = (self._pending + text).split("\n")
        for line in lines:
            log_message(line)
        return len(text)

    def close(self) -> None:
        """Log a last line without a newline."""
        with self._lock:
            last, self._pending = self._pending, ""
        log_message(last)
        super().close()


class RayDataWarnings(logging.Handler):
    """Collects the warnings of this process's Ray Data about a pipeline that waits, one line each.

    While it is active, nothing else handles these warnings. Many of them describe normal operation when
    training is slower than its data, so the caller decides when to take them.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: dict[str, None] = {}  # in order, each kind once

    def start(self) -> None:
        """Collect from now on."""
        for name in _WAITING_LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(logging.WARNING)
            logger.propagate = False
            logger.addHandler(self)

    def stop(self) -> None:
        """Collect no longer."""
        for name in _WAITING_LOGGERS:
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line of a warning about a pipeline that waits."""
        if line := ray_data_line(record.getMessage()):
            self._lines[line] = None

    def take(self) -> list[str]:
        """The lines since the last call."""
        lines, self._lines = list(self._lines), {}
        return lines


def ray_data_line(message: str) -> str | None:
    """The line for a warning of Ray Data about a pipeline that waits; None for every other message."""
    for pattern, text in _RAY_DATA_WARNINGS:
        if match := pattern.search(message):
            return f"Ray Data: {text.format(*(group or '' for group in match.groups()))}"
    return None


@contextlib.contextmanager
def native_stderr_as_log() -> Iterator[None]:
    """Log what native code writes to file descriptor 2 while the block runs.

    `sys.stderr` and the tracebacks of a crash go to the original stderr. Changes the whole process: only for
    the entry point of a command.
    """
    original = os.dup(2)
    read_end, write_end = os.pipe()
    os.dup2(write_end, 2)
    os.close(write_end)
    python_stderr = sys.stderr
    encoding = python_stderr.encoding
    sys.stderr = open(original, "w", buffering=1, encoding=encoding, errors="backslashreplace")  # noqa: SIM115  # open while the process lives
    faulthandler.enable(original)
    reader = threading.Thread(target=_log_lines, args=(read_end,), daemon=True)
    reader.start()
    try:
        yield
    finally:
        faulthandler.disable()
        os.dup2(original, 2)  # closes the pipe, unless a child process still holds it
        reader.join(_FLUSH_TIMEOUT_S)
        sys.stderr.flush()
        sys.stderr = python_stderr


def log_message(line: str) -> None:
    """Log one line of Ray: as a debug line if it describes normal operation, else as a warning."""
    message = _CPP_PREFIX.sub("", _SENDER.sub("", _ANSI_COLOUR.sub("", line).strip()))
    if _NORMAL_OPERATION.search(message):
        log.debug("      ray  %s", message)
    elif message:
        log.warning("      ray  %s", message)


def _log_lines(read_end: int) -> None:
    with open(read_end, encoding="utf-8", errors="backslashreplace") as stream:
        for line in stream:
            log_message(line)
