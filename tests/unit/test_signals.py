"""Signals as a request, and after the start of Ray."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from raysys.signals import stop_request, without_abort_at_sigterm


def test_first_signal_is_recorded_and_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_request() as request:
        assert request.signal_number is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal_number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert request.signal_number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_handler_is_installed_outside_the_main_thread() -> None:
    seen = []

    def open_request() -> None:
        with stop_request() as request:
            seen.append((request.signal_number, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=open_request)
    thread.start()
    thread.join()
    assert seen == [(None, signal.getsignal(signal.SIGTERM))]


@pytest.fixture
def sigterm() -> Iterator[None]:
    """The handler of SIGTERM is restored afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("sigterm")
def test_handler_of_sigterm_is_what_it_was_before_ray_started() -> None:
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    with without_abort_at_sigterm():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM]


@pytest.mark.usefixtures("sigterm")
def test_sigterm_raises_after_the_start_of_ray_where_nothing_handled_it() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with without_abort_at_sigterm():
        pass
    with pytest.raises(SystemExit, match=str(int(signal.SIGTERM))):
        os.kill(os.getpid(), signal.SIGTERM)
