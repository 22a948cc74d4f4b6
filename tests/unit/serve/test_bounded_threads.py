"""Calls beyond the threads and the queue are refused, and late ones are not made."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable

import pytest

from raysys.errors import DeadlineExceeded, ServiceUnavailable
from raysys.serve.bounded_threads import BoundedThreads
from tests.factories import photo
from tests.unit.serve.conftest import Service


def test_call_beyond_threads_and_queue_is_refused() -> None:
    may_continue = threading.Event()
    made: list[int] = []

    def held(number: int) -> None:
        assert may_continue.wait(10)
        made.append(number)

    async def run() -> None:
        threads = BoundedThreads("photos", num_threads=1, queue_length=1)
        accepted = [asyncio.create_task(threads.run(math.inf, held, number)) for number in (0, 1)]
        await asyncio.sleep(0)  # the tasks start
        with pytest.raises(ServiceUnavailable, match="too many photos wait"):
            await threads.run(math.inf, held, 2)
        accepted[1].cancel()  # it waits: its place is free at once
        with pytest.raises(asyncio.CancelledError):
            await accepted[1]
        last = asyncio.create_task(threads.run(math.inf, held, 3))
        await asyncio.sleep(0)
        may_continue.set()
        await asyncio.gather(accepted[0], last)

    asyncio.run(run())
    assert made == [0, 3]


def test_call_whose_deadline_has_passed_is_not_made() -> None:
    made: list[int] = []
    with pytest.raises(DeadlineExceeded):
        asyncio.run(BoundedThreads("photos", 1, 1).run(0.0, made.append, 1))
    assert not made


def test_result_and_error_of_a_call_in_time() -> None:
    threads = BoundedThreads("searches", 1, 1)
    assert asyncio.run(threads.run(math.inf, max, 1, 2)) == 2
    with pytest.raises(ZeroDivisionError):
        asyncio.run(threads.run(math.inf, divmod, 1, 0))


def test_search_with_a_photo_uses_it(serve_with: Callable[..., Service]) -> None:
    response = serve_with(decode_threads=1, queue_length=1).post(
        "/v1/search", files={"image": photo((1, 2, 3))}
    )
    assert response.status_code == 200
