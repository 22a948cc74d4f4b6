"""Ray's messages become log lines; those about normal operation only with RAYSYS_DEBUG."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from raysys.tracking.ray_messages import RayMessages

STARTED = "\x1b[33m(raylet)\x1b[0m WARNING: 8 PYTHON worker processes have been started on node: 12ab with address: 1.2"
SHUTDOWN = "\x1b[33m(raylet)\x1b[0m Task ServeController.graceful_shutdown failed. There are infinite retries"
KILLED = "\x1b[33m(raylet)\x1b[0m 3 Workers (tasks / actors) killed due to memory pressure (OOM)"


def logged(text: str, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    caplog.set_level(logging.DEBUG, logger="raysys")
    with RayMessages() as messages:
        for part in (text[:10], text[10:]):  # a line may arrive in pieces
            messages.write(part)
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize("line", [STARTED, SHUTDOWN])
def test_normal_operation_is_a_debug_line(line: str, caplog: pytest.LogCaptureFixture) -> None:
    assert [level for level, _ in logged(f"{line}\n", caplog)] == ["DEBUG"]


def test_any_other_message_is_a_warning_without_its_colours(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(KILLED, caplog) == [
        ("WARNING", "      ray  3 Workers (tasks / actors) killed due to memory pressure (OOM)")
    ]


SCRIPT = r"""
import os, sys
from raysys.tracking.logs import log, log_to_stderr
from raysys.tracking.ray_messages import native_stderr_as_log
log_to_stderr()
with native_stderr_as_log():
    os.write(2, b"[2026-11-26 02:50:35,207 E 8535 8535] core_worker.cc:2465: Actor 'x' has constructor arguments in the "
                b"object store and max_restarts > 0.\n")
    os.write(2, b"[2026-11-26 02:50:35,207 E 8535 8535] (raylet) node_manager.cc:12: disk is full\n")
    log.info("ours")
    print("python", file=sys.stderr)
os.write(2, b"after\n")
"""


def test_native_stderr_is_logged_and_python_stderr_is_not_touched() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert sorted(done.stderr.splitlines()) == ["      ray  disk is full", "after", "ours", "python"]
