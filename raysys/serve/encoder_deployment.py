"""The encoder as a Serve deployment; concurrent requests are embedded in one batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray
from ray import serve

from raysys.encoder.preprocess import ImagePreprocessing


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
        batched: Any
        for batched in (self._embed_pixels, self._embed_titles):
            batched.set_max_batch_size(max_batch_size)
            batched.set_batch_wait_timeout_s(batch_wait_s)

    async def info(self) -> EncoderInfo:
        """Space id, dimensions and photo preprocessing."""
        return EncoderInfo(self._encoder.space_id, self._encoder.dimensions, self._encoder.image)

    async def embed_pixels(self, pixels: ndarray) -> ndarray:
        """The vector of one photo prepared by `photo_pixels`."""
        vector: ndarray = await self._embed_pixels(pixels)
        return vector

    async def embed_title(self, title: str) -> ndarray:
        """The vector of one title or search query."""
        vector: ndarray = await self._embed_titles(title)
        return vector

    @serve.batch
    async def _embed_pixels(self, pixels: list[ndarray]) -> list[ndarray]:
        return await self._in_thread(lambda: self._encoder.embed_pixels(np.stack(pixels)))

    @serve.batch
    async def _embed_titles(self, titles: list[str]) -> list[ndarray]:
        return await self._in_thread(lambda: self._encoder.embed_titles(titles))

    async def _in_thread(self, embed: Callable[[], ndarray]) -> list[ndarray]:
        # The replica's event loop must stay free for health checks and the next batch.
        return list(await asyncio.to_thread(embed))
