"""The encoder as a Serve deployment: requests that arrive together are embedded together."""

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
class EncoderFacts:
    """What the gateway must know of the encoder."""

    space_id: str
    dimensions: int
    image: ImagePreprocessing


@serve.deployment(name="Encoder")
class Encoder:
    """Turns prepared photos and titles into unit vectors of one space."""

    def __init__(self, bundle_uri: str, device: str, max_batch_size: int, batch_wait_s: float) -> None:
        from raysys.encoder.bundle import open_bundle  # torch, seconds to import: here, not in the driver

        self._encoder = open_bundle(bundle_uri, device=device)
        batched: Any
        for batched in (self._pixels, self._titles):
            batched.set_max_batch_size(max_batch_size)
            batched.set_batch_wait_timeout_s(batch_wait_s)

    async def facts(self) -> EncoderFacts:
        """The space, and how photos are prepared for it."""
        return EncoderFacts(self._encoder.space_id, self._encoder.dimensions, self._encoder.image)

    async def embed_pixels(self, pixels: ndarray) -> ndarray:
        """The vector of one photo that `to_pixels` prepared."""
        vector: ndarray = await self._pixels(pixels)
        return vector

    async def embed_title(self, title: str) -> ndarray:
        """The vector of one title or of search words."""
        vector: ndarray = await self._titles(title)
        return vector

    @serve.batch
    async def _pixels(self, pixels: list[ndarray]) -> list[ndarray]:
        return await self._apart(lambda: self._encoder.embed_pixels(np.stack(pixels)))

    @serve.batch
    async def _titles(self, titles: list[str]) -> list[ndarray]:
        return await self._apart(lambda: self._encoder.embed_titles(titles))

    async def _apart(self, embed: Callable[[], ndarray]) -> list[ndarray]:
        # In a thread: the replica's loop must stay free for health checks and the next batch.
        return list(await asyncio.to_thread(embed))
