"""The vector of a query: embedded by the encoder, kept from before, or given."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys.artifacts.served import ServedPair
from raysys.config.schema import ServeConfig
from raysys.encoder.preprocess import photo_pixels
from raysys.errors import DamagedData, InputError, NoEncoder
from raysys.serve.bounded_threads import BoundedThreads
from raysys.serve.deadline import current_deadline
from raysys.serve.encoder_calls import EncoderCalls
from raysys.serve.encoder_deployment import EncoderInfo
from raysys.serve.metrics import timed
from raysys.serve.vector_cache import VectorCache, photo_key


class QueryVectors:
    """Embeds texts and photos by the deployment `encoder`, until the deadline of the request.

    Photos are decoded here, and the vectors of the last ones are kept. All methods raise NoEncoder for a pair
    without an encoder.
    """

    def __init__(self, encoder: Any, section: ServeConfig) -> None:
        self._encoder, self._calls = encoder, EncoderCalls(encoder, section)
        self._decoding = BoundedThreads("photos", section.decode_threads, section.queue_length)
        self._cache = VectorCache(section.vector_cache_items)
        self._infos: dict[str, EncoderInfo] = {}

    async def info(self, pair: ServedPair) -> EncoderInfo:
        """The encoder of a pair."""
        uri = _require_encoder(pair)
        if uri not in self._infos:
            self._infos[uri] = await self._encoder.info.remote(pair.generation)
        return self._infos[uri]

    async def of_text(self, pair: ServedPair, text: str | None) -> Float32[ndarray, " d"]:
        """The vector of a text in the space of a pair. Raises: InputError for one without a word."""
        _require_encoder(pair)
        if text is None or not text.strip():
            raise InputError("text: is empty; give at least one word")
        with timed("encode"):
            vector = await self._calls.title(pair.generation, text)
        require_finite("the vector of the query", vector, "serve another encoder")
        return vector

    async def of_photo(self, pair: ServedPair, photo: bytes) -> Float32[ndarray, " d"]:
        """The vector of a photo in the space of a pair. Raises: InputError for one that cannot be decoded."""
        info = await self.info(pair)
        key = photo_key(photo, info.space_id)
        vector = self._cache.get(key)
        if vector is None:
            with timed("decode"):
                pixels = await self._decoding.run(current_deadline(), photo_pixels, photo, info.image)
            with timed("encode"):
                vector = await self._calls.photo(pair.generation, pixels)
            require_finite("the vector of the query", vector, "serve another encoder")
        self._cache.put(key, vector)
        return vector


def given_vector(vector: list[float], space_id: str | None) -> tuple[Float32[ndarray, " d"], str]:
    """The vector of a request, scaled to length 1 so that scores are cosines, and its space id.

    Raises: InputError for one that is not finite or all zero, and without a space id.
    """
    if space_id is None:
        raise InputError("space_id: is required with vector; /v1/embed returns both")
    largest = float(np.abs(vector).max())
    if not 0 < largest < np.inf:
        length = float(np.linalg.norm(vector))
        raise InputError(f"vector: must be finite and not all zero, got a vector of length {length:g}")
    # The squares of very large or very small numbers are not finite or 0.
    scaled = np.asarray(vector) / largest
    return np.asarray(scaled / np.linalg.norm(scaled), np.float32), space_id


def require_finite(what: str, numbers: Iterable[float], remedy: str) -> None:
    """JSON has no NaN: it would leave as null. Raises: DamagedData."""
    if not all(map(math.isfinite, numbers)):
        raise DamagedData(f"{what}: contains NaN or infinity; {remedy}")


def _require_encoder(pair: ServedPair) -> str:
    """The URI of the encoder of a pair."""
    if pair.encoder_uri is None:
        raise NoEncoder(
            "photos and texts cannot be embedded: the vectors of the index are of no EncoderBundle; "
            "search by item, or by a vector and the space_id of /readyz"
        )
    return pair.encoder_uri
