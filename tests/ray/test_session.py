"""The start of a local cluster is retried when it times out, as it may on a busy machine."""

from __future__ import annotations

import pytest
import ray

from raysys.cluster import session
from raysys.config.schema import RayConfig
from raysys.errors import ClusterError

TIMED_OUT = "The current node timed out during startup. This could happen because .."


def fail_times(monkeypatch: pytest.MonkeyPatch, times: int, message: str) -> list[int]:
    """Make the first `times` starts fail; the returned list grows with every start."""
    starts: list[int] = []

    def start(**options: object) -> None:
        starts.append(1)
        if len(starts) <= times:
            raise Exception(message)

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return starts


def test_start_that_times_out_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = fail_times(monkeypatch, 2, TIMED_OUT)
    session._start_local(RayConfig())
    assert len(starts) == 3


def test_start_that_always_times_out_is_a_cluster_error(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = fail_times(monkeypatch, 9, TIMED_OUT)
    with pytest.raises(
        ClusterError, match=r"^ray: no start here within 3 x 30 s; the machine is too busy, .*ray\.address"
    ):
        session._start_local(RayConfig())
    assert len(starts) == 3


def test_other_failures_are_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = fail_times(monkeypatch, 1, "no space left")
    with pytest.raises(Exception, match="no space left"):
        session._start_local(RayConfig())
    assert len(starts) == 1
