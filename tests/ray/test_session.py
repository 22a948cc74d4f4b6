"""A cluster on a busy machine gets more than one chance to start."""

from __future__ import annotations

import pytest
import ray

from raysys.cluster import session
from raysys.config.schema import RayConfig
from raysys.errors import ClusterError

TOO_LATE = "The current node timed out during startup. This could happen because .."


def fail_times(monkeypatch: pytest.MonkeyPatch, times: int, message: str) -> list[int]:
    """Make the first so many starts fail; the list grows with every start."""
    starts: list[int] = []

    def start(section: RayConfig) -> None:
        starts.append(1)
        if len(starts) <= times:
            raise Exception(message)

    monkeypatch.setattr(session, "_init", start)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return starts


def test_start_that_comes_too_late_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = fail_times(monkeypatch, 2, TOO_LATE)
    session._start_here(RayConfig())
    assert len(starts) == 3


def test_start_that_always_comes_too_late_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = fail_times(monkeypatch, 9, TOO_LATE)
    with pytest.raises(
        ClusterError, match="ray: did not start here within 3 x 30 s; the machine is too busy"
    ):
        session._start_here(RayConfig())
    assert len(starts) == 3


def test_other_failures_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = fail_times(monkeypatch, 1, "no space left")
    with pytest.raises(Exception, match="no space left"):
        session._start_here(RayConfig())
    assert len(starts) == 1
