"""A call with a time limit: its result, its errors, and what the caller sees while it waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from raysys import parallel
from raysys.parallel import TimeLimitExceeded, call_within, has_unfinished_calls, map_in_threads


@pytest.fixture(autouse=True)
def nothing_unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of the process may have left a thread that waits for a silent server."""
    monkeypatch.setattr(parallel, "_unfinished", set())


def test_result_and_error_of_the_work_are_passed_on() -> None:
    assert call_within(60, lambda: 3, "store") == 3
    with pytest.raises(ZeroDivisionError):
        call_within(60, lambda: 1 / 0, "store")
    assert not has_unfinished_calls()


def test_time_limit_ends_the_wait_and_the_thread_is_known_until_it_ends() -> None:
    answer = threading.Event()
    with pytest.raises(TimeLimitExceeded, match=r"^no answer within 0.02 s$"):
        call_within(0.02, answer.wait, "store")
    assert has_unfinished_calls()
    answer.set()
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.current_thread():
            thread.join(0.2)
    assert not has_unfinished_calls()


def test_long_wait_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(parallel, "_FIRST_NOTICE_S", 0.01)
    monkeypatch.setattr(parallel.log, "info", lambda text, *values: lines.append(text % values))
    answer = threading.Event()
    with pytest.raises(TimeLimitExceeded):
        call_within(0.03, answer.wait, "s3://shop")
    answer.set()
    assert lines == ["s3://shop: still waiting after 0 s, at most 0.03 s"]


def test_pieces_run_at_the_same_time_and_come_in_order() -> None:
    three_at_once = threading.Barrier(3, timeout=30)

    def work(number: int) -> int:
        three_at_once.wait()
        return number * number

    assert list(map_in_threads(work, range(9), 3)) == [number * number for number in range(9)]


def test_no_more_threads_than_allowed_run_and_pieces_are_taken_when_needed() -> None:
    running = threading.Semaphore(2)
    taken: list[int] = []

    def pieces() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        assert running.acquire(blocking=False), "a third thread runs"
        running.release()
        return number

    results = map_in_threads(work, pieces(), 2)
    assert next(results) == 0
    assert taken == [0, 1]
    assert list(results) == list(range(1, 20))


def test_error_of_a_piece_is_raised_in_its_place() -> None:
    results = map_in_threads(lambda number: 1 / number, [1, 0, 2], 2)
    assert next(results) == 1.0
    with pytest.raises(ZeroDivisionError):
        next(results)
