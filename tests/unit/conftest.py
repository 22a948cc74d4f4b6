"""Unit tests stay pure: no Ray, no sleeping, no sockets."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def only_pure_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a unit test that starts Ray, sleeps or opens a connection."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a unit test needs no Ray, no sleep and no socket")

    import ray

    monkeypatch.setattr(ray, "init", forbidden)
    monkeypatch.setattr(time, "sleep", forbidden)
    monkeypatch.setattr(socket.socket, "connect", forbidden)


@pytest.fixture(autouse=True)
def disk_without_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip `fsync`: no unit test survives a power cut, and there would be thousands of flushes."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(autouse=True)
def log_as_imported() -> Iterator[None]:
    """Undo what a command did to the logger of raysys, so that the next test sees its records."""
    log = logging.getLogger("raysys")
    handlers, level, propagates = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.propagate = handlers, propagates
    log.setLevel(level)
