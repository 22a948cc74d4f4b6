"""Ports for a program that listens on them later."""

from __future__ import annotations

import contextlib
import socket

import pytest

from raysys.serve import ingress


class Socket(contextlib.AbstractContextManager["Socket"]):
    """A socket that listens."""

    def __exit__(self, *_: object) -> None:
        pass


def test_ports_are_free_and_not_those_that_others_get(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def listen(address: tuple[str, int]) -> Socket:
        tried.append(address[1])
        if len(tried) in (1, 3):
            raise OSError("in use")
        return Socket()

    monkeypatch.setattr(socket, "create_server", listen)
    assert ingress.free_ports(3) == [tried[1], tried[3], tried[4]]
    assert len(set(tried)) == 5
    assert all(20_000 <= port < 32_768 for port in tried)
