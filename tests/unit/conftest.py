"""Unit tests stay pure: no Ray, no sleeping, no sockets."""

from __future__ import annotations

import socket
import time
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
