"""Held-out photos with what a model finds beside them, before and after training, as one picture."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from PIL import Image

from raysys.encoder.preprocess import ImagePreprocessing, photo_pixels
from raysys.encoder.siglip import image_vectors
from raysys.index.exact import exact_search
from raysys.shards.reader import ShardRef, read_shard

_NUM_PHOTOS = 64
_NUM_QUERIES = 6
_NUM_NEIGHBOURS = 4
_PHOTO_PX = 64
_GAP_PX = 8


@dataclass(frozen=True)
class NeighbourGrid:
    """A drawing that can be sent to where it is made; `draw(start, tuned)` makes it."""

    shards: list[ShardRef]
    image: ImagePreprocessing

    def draw(self, start: Any, tuned: Any) -> bytes | None:
        """The sheet of the first photos as a JPEG; None without photos."""
        stored = (item for shard in self.shards for item in read_shard(shard))
        photos = [photo_pixels(one.item.image, self.image) for one in itertools.islice(stored, _NUM_PHOTOS)]
        if not photos:
            return None
        pixels = np.stack(photos)
        before, after = (image_vectors(model, pixels, self.image).numpy() for model in (start, tuned))
        encoded = io.BytesIO()
        neighbour_grid(pixels, before, after).save(encoded, "JPEG", quality=85)
        return encoded.getvalue()


def neighbour_grid(
    photos: UInt8[ndarray, "photos side side 3"],
    before: Float32[ndarray, "photos d"],
    after: Float32[ndarray, "photos d"],
) -> Image.Image:
    """A row for each of the first photos: itself, its nearest by the start, and by the tuned model."""
    small = [np.asarray(Image.fromarray(photo).resize((_PHOTO_PX, _PHOTO_PX))) for photo in photos]
    gap = np.full((_PHOTO_PX, _GAP_PX, 3), 255, dtype=np.uint8)
    rows = []
    for query in range(min(_NUM_QUERIES, len(photos))):
        found = [[small[row] for row in nearest(vectors, query)] for vectors in (before, after)]
        rows.append(np.concatenate([small[query], gap, *found[0], gap, *found[1]], axis=1))
    return Image.fromarray(np.concatenate(rows))


def nearest(vectors: Float32[ndarray, "photos d"], query: int) -> Sequence[int]:
    """The rows of the photos most like this one, the nearest first, itself left out."""
    _, rows = exact_search(vectors[query][None], vectors, min(_NUM_NEIGHBOURS + 1, len(vectors)))
    return [int(row) for row in rows[0] if row != query][:_NUM_NEIGHBOURS]
