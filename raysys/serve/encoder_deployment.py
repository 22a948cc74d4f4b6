"""The encoder as a Serve deployment; concurrent requests are embedded in one batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy import ndarray
from ray import serve

from raysys.encoder.preprocess import ImagePreprocessing
from raysys.errors import DeadlineExceeded

T = TypeVar("T")


@dataclass(frozen=True)
class EncoderInfo:
    """The properties of the encoder that the gateway needs."""

    space_id: str
    dimensions: int
    image: ImagePreprocessing


@serve.deployment(name="Encoder")
class EncoderDeployment:
    """Embeds preprocessed photos and titles as unit vectors of one embedding space."""

    def __init__(self, bundle_uri: str, device: str, max_batch_size: int, batch_wait_s: float) -> None:
        from raysys.encoder.bundle import open_bundle  # torch takes seconds to import; only replicas need it

        self._encoder = open_bundle(bundle_uri, device=device)
        # The first batch of a model takes longer; Serve sends requests after this.
        self._encoder.embed_pixels(np.zeros((1, *self._encoder.image.shape), self._encoder.image.dtype))
        self._encoder.embed_titles(["warm-up"])
        batched: Any
        for batched in (self._embed_pixels, self._embed_titles):
            batched.set_max_batch_size(max_batch_size)
            batched.set_batch_wait_timeout_s(batch_wait_s)

    async def info(self) -> EncoderInfo:
        """Space id, dimensions and photo preprocessing."""
        return EncoderInfo(self._encoder.space_id, self._encoder.dimensions, self._encoder.image)

    async def embed_pixels(self, pixels: ndarray, deadline: float) -> ndarray:
        """The vector of one photo prepared by `photo_pixels`. Raises: DeadlineExceeded."""
        return _in_time(await self._embed_pixels((pixels, deadline)))

    async def embed_title(self, title: str, deadline: float) -> ndarray:
        """The vector of one title or search query. Raises: DeadlineExceeded."""
        return _in_time(await self._embed_titles((title, deadline)))

    @serve.batch
    async def _embed_pixels(self, inputs: list[tuple[ndarray, float]]) -> list[ndarray | None]:
        return await embed_batch(lambda pixels: self._encoder.embed_pixels(np.stack(pixels)), inputs)

    @serve.batch
    async def _embed_titles(self, inputs: list[tuple[str, float]]) -> list[ndarray | None]:
        return await embed_batch(self._encoder.embed_titles, inputs)


async def embed_batch(
    embed: Callable[[list[T]], ndarray], inputs: list[tuple[T, float]]
) -> list[ndarray | None]:
    """A vector for each input, None for those whose deadline has passed."""
    now = time.time()
    vectors: list[ndarray | None] = [None] * len(inputs)
    rows = [row for row, (_, deadline) in enumerate(inputs) if now < deadline]
    if rows:
        # The replica's event loop must stay free for health checks and the next batch.
        embedded = await asyncio.to_thread(embed, [inputs[row][0] for row in rows])
        for row, vector in zip(rows, embedded, strict=True):
            vectors[row] = vector
    return vectors


def _in_time(vector: ndarray | None) -> ndarray:
    if vector is None:
        raise DeadlineExceeded("the encoder had no time for the request before its deadline; try again later")
    return vector
