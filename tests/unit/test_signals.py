"""The first signal is recorded, the second raises KeyboardInterrupt."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from raysys.signals import stop_request


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
