"""Calls of the encoder deployment, each with as many photos or titles as wait for one.

A call costs gateway and encoder milliseconds of CPU time whatever it carries. So a gateway has two calls for
each encoder replica on their way: one that is computed and the next one. What comes meanwhile goes together.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from jaxtyping import Float32
from numpy import ndarray

from raysys.config.schema import ServeConfig
from raysys.errors import DeadlineExceeded, ServiceUnavailable
from raysys.serve.deadline import Deadline, current_deadline

Send: TypeAlias = Callable[[list[Any], list[Deadline]], Awaitable[list[ndarray | None]]]
_CALLS_PER_REPLICA = 2


class EncoderCalls:
    """Embeds inputs by the deployment `encoder`. Must be used in one event loop."""

    def __init__(self, encoder: Any, section: ServeConfig) -> None:
        self._encoder = encoder
        replicas = section.max_encoder_replicas or section.encoder_replicas
        self._limits = section.max_batch_size, _CALLS_PER_REPLICA * replicas, section.queue_length
        self._queues: dict[tuple[str, int], _Queue] = {}

    async def photo(self, generation: int, pixels: ndarray) -> Float32[ndarray, " d"]:
        """The vector of a photo prepared by `photo_pixels`, by the encoder of a generation.

        Raises: DeadlineExceeded, ServiceUnavailable if too many inputs wait, and what the call raises.
        """
        return await self._vector("embed_pixels", generation, pixels)

    async def title(self, generation: int, title: str) -> Float32[ndarray, " d"]:
        """The vector of a title or a search query. Raises: as `photo`."""
        return await self._vector("embed_titles", generation, title)

    async def _vector(self, method: str, generation: int, value: Any) -> ndarray:
        async def send(values: list[Any], deadlines: list[Deadline]) -> list[ndarray | None]:
            found: list[ndarray | None] = await getattr(self._encoder, method).remote(
                generation, values, deadlines
            )
            return found

        queue = self._queues.setdefault((method, generation), _Queue(send, *self._limits))
        vector = await queue.vector(value, current_deadline())
        if vector is None:
            raise DeadlineExceeded(
                "the encoder had no time for the request before its deadline; try again later"
            )
        return vector


@dataclass(eq=False)
class _Waiting:
    value: Any
    deadline: Deadline
    vector: asyncio.Future[ndarray | None]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    """Of its request: a call is part of the trace of its first input's."""


class _Queue:
    """Inputs of one method and generation."""

    def __init__(self, send: Send, max_inputs: int, max_calls: int, max_waiting: int) -> None:
        self._send = send
        self._max_inputs, self._max_calls, self._max_waiting = max_inputs, max_calls, max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._calls: dict[asyncio.Task[None], Sequence[_Waiting]] = {}

    async def vector(self, value: Any, deadline: Deadline) -> ndarray | None:
        """The vector of an input; None if its deadline passed before. Raises: as `EncoderCalls.photo`."""
        if len(self._waiting) >= self._max_waiting:
            raise ServiceUnavailable("too many photos and texts wait; try again")
        one = _Waiting(value, deadline, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._start_calls()
        try:
            return await one.vector
        except asyncio.CancelledError:
            self._leave(one)
            raise

    def _start_calls(self) -> None:
        while len(self._calls) < self._max_calls and (inputs := self._take()):
            call = asyncio.get_running_loop().create_task(self._call(inputs), context=inputs[0].context)
            self._calls[call] = inputs
            call.add_done_callback(self._end)

    def _take(self) -> list[_Waiting]:
        inputs: list[_Waiting] = []
        while self._waiting and len(inputs) < self._max_inputs:
            inputs.append(self._waiting.popleft())
        return inputs

    async def _call(self, inputs: Sequence[_Waiting]) -> None:
        vectors = await self._send([one.value for one in inputs], [one.deadline for one in inputs])
        for one, vector in zip(inputs, vectors, strict=True):
            if not one.vector.done():
                one.vector.set_result(vector)

    def _end(self, call: asyncio.Task[None]) -> None:
        left = [one for one in self._calls.pop(call) if not one.vector.done()]
        if call.cancelled():
            # Ray Serve cancels a call with the request in whose context it was made; the others go again.
            self._waiting.extendleft(reversed(left))
        elif error := call.exception():
            for one in left:
                one.vector.set_exception(error)
        self._start_calls()

    def _leave(self, one: _Waiting) -> None:
        """Nobody waits for this input any more; nor for its call, if it was the last one."""
        if one in self._waiting:
            self._waiting.remove(one)
        for call, inputs in self._calls.items():
            if one in inputs and all(other.vector.done() for other in inputs):
                call.cancel()
