"""Vectors of photos that were embedded before: many uploads are the same photo again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TypeAlias

from jaxtyping import Float32
from numpy import ndarray

from raysys.serve import metrics

Key: TypeAlias = tuple[bytes, str]


def photo_key(photo: bytes, space_id: str) -> Key:
    """What decides the vector of a photo: its bytes and the embedding space."""
    return hashlib.sha256(photo).digest(), space_id


class VectorCache:
    """The vectors of the `max_items` photos that were used last."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._vectors: OrderedDict[Key, Float32[ndarray, " d"]] = OrderedDict()

    def get(self, key: Key) -> Float32[ndarray, " d"] | None:
        """The vector of a photo, None if it is not kept; counted as `raysys_vector_cache`."""
        vector = self._vectors.get(key)
        metrics.record("raysys_vector_cache", 1, result="miss" if vector is None else "hit")
        return vector

    def put(self, key: Key, vector: Float32[ndarray, " d"]) -> None:
        """Keep a vector that was used; the one that was used least recently makes room."""
        self._vectors[key] = vector
        self._vectors.move_to_end(key)
        if len(self._vectors) > self._max_items:
            self._vectors.popitem(last=False)
