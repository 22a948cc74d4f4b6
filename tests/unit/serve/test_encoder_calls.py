"""How inputs share calls of the encoder, and what happens to the others when one leaves or a call ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from raysys.config.schema import ServeConfig
from raysys.errors import DeadlineExceeded, ServiceUnavailable
from raysys.serve.encoder_calls import EncoderCalls
from tests.unit.serve.conftest import Handle


class HeldEncoder:
    """An encoder whose calls end when the test ends them; the vector of a text is its length."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], asyncio.Future[None]]] = []
        self.num_cancelled = 0

    async def embed_titles(self, generation: int, titles: list[str], deadlines: list[float]) -> list[Any]:
        self.calls.append((titles, asyncio.get_running_loop().create_future()))
        try:
            await self.calls[-1][1]
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        return [None if title == "late" else np.array([len(title)]) for title in titles]

    def titles(self) -> list[list[str]]:
        return [titles for titles, _ in self.calls]


Test = Callable[[HeldEncoder, Callable[[str], "asyncio.Task[Any]"]], Awaitable[None]]


def run(test: Test, **settings: Any) -> None:
    """Run a test with an encoder and a function that begins the embedding of a title."""

    async def main() -> None:
        encoder = HeldEncoder()
        calls = EncoderCalls(Handle(encoder), ServeConfig(**settings))

        def embed(title: str) -> asyncio.Task[Any]:
            embedding: Coroutine[Any, Any, Any] = calls.title(1, title)
            return asyncio.create_task(embedding)

        await test(encoder, embed)

    asyncio.run(main())


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_two_calls_are_on_their_way_and_what_comes_meanwhile_goes_together() -> None:
    async def test(encoder: HeldEncoder, embed: Any) -> None:
        tasks = [embed("a" * number) for number in range(1, 7)]
        await settle()
        assert encoder.titles() == [["a"], ["aa"]]
        encoder.calls[0][1].set_result(None)
        await settle()
        assert encoder.titles()[2:] == [["aaa", "aaaa", "aaaaa"]]  # at most `max_batch_size`
        encoder.calls[1][1].set_result(None)
        await settle()
        assert encoder.titles()[3:] == [["aaaaaa"]]
        for _, answer in encoder.calls[2:]:
            answer.set_result(None)
        assert [vector.tolist() for vector in await asyncio.gather(*tasks)] == [[n] for n in range(1, 7)]

    run(test, max_batch_size=3)


def test_more_than_may_wait_are_refused() -> None:
    async def test(encoder: HeldEncoder, embed: Any) -> None:
        tasks = [embed("a") for _ in range(5)]
        await settle()
        assert [task.done() for task in tasks] == [False, False, False, False, True]
        with pytest.raises(ServiceUnavailable):
            await tasks[4]
        for task in tasks[:4]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(test, queue_length=2)


def test_one_that_was_too_late_does_not_affect_the_others_of_its_call() -> None:
    async def test(encoder: HeldEncoder, embed: Any) -> None:
        tasks = [embed(title) for title in ("a", "b", "late", "dddd")]
        await settle()
        encoder.calls[0][1].set_result(None)
        await settle()
        assert encoder.titles()[2:] == [["late", "dddd"]]
        for _, answer in encoder.calls[1:]:
            answer.set_result(None)
        with pytest.raises(DeadlineExceeded):
            await tasks[2]
        assert (await tasks[3]).tolist() == [4]

    run(test)


def test_error_of_a_call_is_that_of_all_its_inputs_and_of_no_other() -> None:
    async def test(encoder: HeldEncoder, embed: Any) -> None:
        tasks = [embed(title) for title in ("a", "b", "c", "d")]
        await settle()
        encoder.calls[0][1].set_result(None)
        await settle()
        encoder.calls[2][1].set_exception(ServiceUnavailable("lost"))
        encoder.calls[1][1].set_result(None)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(result) for result in results] == ["[1]", "[1]", "lost", "lost"]

    run(test)


def test_input_that_leaves_takes_only_its_own_call_with_it() -> None:
    async def test(encoder: HeldEncoder, embed: Any) -> None:
        alone, other, first, second, waiting = (embed(title) for title in ("a", "b", "c", "d", "e"))
        await settle()
        waiting.cancel()
        alone.cancel()
        await settle()
        assert encoder.num_cancelled == 1
        assert encoder.titles() == [["a"], ["b"], ["c", "d"]]
        first.cancel()
        await settle()
        assert encoder.num_cancelled == 1
        for _, answer in encoder.calls[1:]:
            answer.set_result(None)
        assert [(await task).tolist() for task in (other, second)] == [[1], [1]]

    run(test)


def test_call_that_was_cancelled_from_outside_is_made_again_for_those_who_still_wait() -> None:
    """Ray Serve cancels the calls of a request that ends; other requests may share them."""

    async def test(encoder: HeldEncoder, embed: Any) -> None:
        tasks = [embed(title) for title in ("a", "b", "c", "d")]
        await settle()
        encoder.calls[0][1].set_result(None)
        await settle()
        tasks[2].cancel()
        encoder.calls[2][1].cancel()
        await settle()
        assert encoder.titles() == [["a"], ["b"], ["c", "d"], ["d"]]
        for _, answer in (encoder.calls[1], encoder.calls[3]):
            answer.set_result(None)
        assert (await tasks[3]).tolist() == [1]

    run(test)
