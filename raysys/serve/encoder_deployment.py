"""The encoder as a Serve deployment; concurrent requests are embedded in one batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy import ndarray
from ray import serve

from raysys.artifacts.served import ServedPair
from raysys.config.schema import ServeConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.errors import DeadlineExceeded
from raysys.serve.deadline import has_passed
from raysys.serve.generations import Generations

if TYPE_CHECKING:
    from raysys.encoder.siglip import SiglipEncoder


@dataclass(frozen=True)
class EncoderInfo:
    """The properties of the encoder that the gateway needs."""

    space_id: str
    dimensions: int
    image: ImagePreprocessing


class Input(NamedTuple):
    """The pixels of a photo or a title, the encoder that embeds it, and the deadline of its request."""

    encoder: SiglipEncoder
    value: Any
    deadline: float


@serve.deployment(name="Encoder")
class EncoderDeployment:
    """Embeds preprocessed photos and titles as unit vectors, each with the encoder of a generation."""

    def __init__(
        self,
        initial: ServedPair,
        served_uri: str,
        section: ServeConfig,
    ) -> None:
        self._section = section
        self._generations = Generations(
            served_uri, initial, uri_of=lambda pair: pair.encoder_uri, open_version=self._open
        )
        self._generations.start()
        batched: Any
        for batched in (self._embed_pixels, self._embed_titles):
            batched.set_max_batch_size(section.max_batch_size)
            batched.set_batch_wait_timeout_s(section.batch_wait_ms / 1000)

    async def load(self, pair: ServedPair) -> None:
        """Load the encoder of a pair beside the others, which embed meanwhile. Raises: as `open_bundle`."""
        await asyncio.to_thread(self._generations.load, pair)

    async def keep(self, generations: Collection[int]) -> None:
        """Drop all other generations."""
        await asyncio.to_thread(self._generations.keep, generations)

    async def info(self, generation: int) -> EncoderInfo:
        """Space id, dimensions and photo preprocessing."""
        encoder = await self._generations.get(generation)
        return EncoderInfo(encoder.space_id, encoder.dimensions, encoder.image)

    async def embed_pixels(self, generation: int, pixels: ndarray, deadline: float) -> ndarray:
        """The vector of one photo prepared by `photo_pixels`. Raises: GenerationGone, DeadlineExceeded."""
        encoder = await self._generations.get(generation)
        return _in_time(await self._embed_pixels(Input(encoder, pixels, deadline)))

    async def embed_title(self, generation: int, title: str, deadline: float) -> ndarray:
        """The vector of one title or search query. Raises: GenerationGone, DeadlineExceeded."""
        encoder = await self._generations.get(generation)
        return _in_time(await self._embed_titles(Input(encoder, title, deadline)))

    @serve.batch
    async def _embed_pixels(self, inputs: list[Input]) -> list[ndarray | None]:
        return await embed_batch(inputs, lambda encoder, some: encoder.embed_pixels(np.stack(some)))

    @serve.batch
    async def _embed_titles(self, inputs: list[Input]) -> list[ndarray | None]:
        return await embed_batch(inputs, lambda encoder, some: encoder.embed_titles(some))

    def _open(self, uri: str) -> SiglipEncoder:
        from raysys.encoder.bundle import open_bundle  # torch takes seconds to import; only replicas need it

        section = self._section
        encoder = open_bundle(uri, device=section.device, precision=section.chosen_precision)
        encoder.warm_up(section.max_batch_size)
        return encoder


async def embed_batch(
    inputs: list[Input], embed: Callable[[SiglipEncoder, list[Any]], ndarray]
) -> list[ndarray | None]:
    """A vector for each input by its encoder, None for those whose deadline has passed.

    During a switch, a batch may have inputs of two encoders.
    """
    vectors: list[ndarray | None] = [None] * len(inputs)
    in_time = [row for row, one in enumerate(inputs) if not has_passed(one.deadline)]
    for encoder in {id(inputs[row].encoder): inputs[row].encoder for row in in_time}.values():
        rows = [row for row in in_time if inputs[row].encoder is encoder]
        # The replica's event loop must stay free for health checks and the next batch.
        embedded = await asyncio.to_thread(embed, encoder, [inputs[row].value for row in rows])
        for row, vector in zip(rows, embedded, strict=True):
            vectors[row] = vector
    return vectors


def _in_time(vector: ndarray | None) -> ndarray:
    if vector is None:
        raise DeadlineExceeded("the encoder had no time for the request before its deadline; try again later")
    return vector
