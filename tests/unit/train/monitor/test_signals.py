"""What signals ask for: the first is remembered, the second ends."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from raysys.train.monitor.signals import stop_request


def test_first_signal_is_remembered_and_the_second_ends() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_request() as request:
        assert request.signal_number is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal_number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert request.signal_number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_take_no_signals() -> None:
    found = []

    def ask() -> None:
        with stop_request() as request:
            found.append((request.signal_number, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [(None, signal.getsignal(signal.SIGTERM))]
