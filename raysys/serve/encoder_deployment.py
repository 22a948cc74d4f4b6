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
from raysys.encoder.preprocess import ImagePreprocessing
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
    """The pixels of a photo or a title, and the encoder that embeds it."""

    encoder: SiglipEncoder
    value: Any


async def embed_batch(
    inputs: list[Input], embed: Callable[[SiglipEncoder, list[Any]], ndarray]
) -> list[ndarray]:
    """The vectors of a batch, in order; during a switch, it may have inputs of two encoders."""
    vectors: list[Any] = [None] * len(inputs)
    for encoder in {id(one.encoder): one.encoder for one in inputs}.values():
        numbers = [number for number, one in enumerate(inputs) if one.encoder is encoder]
        # The replica's event loop must stay free for health checks and the next batch.
        found = await asyncio.to_thread(embed, encoder, [inputs[number].value for number in numbers])
        for number, vector in zip(numbers, found, strict=True):
            vectors[number] = vector
    return vectors


@serve.deployment(name="Encoder")
class EncoderDeployment:
    """Embeds preprocessed photos and titles as unit vectors, each with the encoder of a generation."""

    def __init__(
        self,
        initial: ServedPair,
        served_uri: str,
        device: str,
        max_batch_size: int,
        batch_wait_s: float,
    ) -> None:
        self._device = device
        self._generations = Generations(
            served_uri, initial, uri_of=lambda pair: pair.encoder_uri, open_version=self._open
        )
        self._generations.start()
        batched: Any
        for batched in (self._embed_pixels, self._embed_titles):
            batched.set_max_batch_size(max_batch_size)
            batched.set_batch_wait_timeout_s(batch_wait_s)

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

    async def embed_pixels(self, generation: int, pixels: ndarray) -> ndarray:
        """The vector of one photo prepared by `photo_pixels`. Raises: GenerationGone."""
        encoder = await self._generations.get(generation)
        vector: ndarray = await self._embed_pixels(Input(encoder, pixels))
        return vector

    async def embed_title(self, generation: int, title: str) -> ndarray:
        """The vector of one title or search query. Raises: GenerationGone."""
        encoder = await self._generations.get(generation)
        vector: ndarray = await self._embed_titles(Input(encoder, title))
        return vector

    @serve.batch
    async def _embed_pixels(self, inputs: list[Input]) -> list[ndarray]:
        return await embed_batch(inputs, lambda encoder, pixels: encoder.embed_pixels(np.stack(pixels)))

    @serve.batch
    async def _embed_titles(self, inputs: list[Input]) -> list[ndarray]:
        return await embed_batch(inputs, lambda encoder, titles: encoder.embed_titles(titles))

    def _open(self, uri: str) -> SiglipEncoder:
        """The encoder of a bundle. It embeds a photo and a title, so that no request is the first."""
        from raysys.encoder.bundle import open_bundle  # torch takes seconds to import; only replicas need it

        encoder = open_bundle(uri, device=self._device)
        encoder.embed_pixels(np.zeros((1, encoder.image.size_px, encoder.image.size_px, 3), np.uint8))
        encoder.embed_titles(["a"])
        return encoder
