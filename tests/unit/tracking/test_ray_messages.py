"""Ray's messages become log lines; those about normal operation only with RAYSYS_DEBUG."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from raysys.tracking.ray_messages import RayDataWarnings, RayMessages, ray_data_line

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


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "Cluster resources are not enough to run any task from TaskPoolMapOperator[ReadReads]. "
            "The job may hang forever unless the cluster scales up.",
            "Ray Data: the free resources of the cluster do not suffice for a task of TaskPoolMapOperator[ReadReads]",
        ),
        (
            "Operator MapBatches(_Decoder) is running but has no outputs for 61.5 seconds. Execution may be ..\nIgnore ..",
            "Ray Data: MapBatches(_Decoder) has had no output for 61.5 s",
        ),
        (
            "A task (task_id=c8ef45cc) of operator MapBatches(_Decoder) (pid=7, node_id=ab12, attempt=0) has been "
            "running or stuck in scheduling for 35.22s, which is longer than the average task duration + z-score ..",
            "Ray Data: a task of MapBatches(_Decoder) (pid=7, node_id=ab12, attempt=0) has run or waited for 35.22 s, "
            "much longer than the others",
        ),
        (
            "MapBatches(EmbeddingActor): an actor died during initialization and will be replaced (1 consecutive ..",
            "Ray Data: an actor of MapBatches(EmbeddingActor) died while it started",
        ),
        ("Found 2 issues. To disable issue detection, run DataContext ..", None),
    ],
)
def test_warning_about_a_waiting_pipeline_is_one_line(message: str, line: str | None) -> None:
    assert ray_data_line(message) == line


def test_warnings_are_collected_in_spite_of_the_level_of_ray_data(capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings = RayDataWarnings()
    warnings.start()
    try:
        for _ in range(2):
            logging.getLogger("ray.data._internal.execution.resource_manager").warning(
                "Cluster resources are not enough to run any task from Reads. The job may hang"
            )
        assert warnings.take() == [
            "Ray Data: the free resources of the cluster do not suffice for a task of Reads"
        ]
        assert warnings.take() == []
    finally:
        warnings.stop()
    assert capfd.readouterr() == ("", "")
