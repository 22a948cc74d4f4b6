"""A grid of held-out photos with their nearest neighbours by the start and by the fine-tuned model."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from PIL import Image

from raysys import storage
from raysys.index.exact import exact_search
from raysys.tracking.metrics_log import neighbour_grid_uri, start_vectors_uri

_NUM_PHOTOS = 64  # among which neighbours are searched
_NUM_QUERIES = 6
_NUM_NEIGHBOURS = 4
_PHOTO_PX = 64
_GAP_PX = 8


def record_neighbours(
    run_uri: str,
    step: int,
    photos: UInt8[ndarray, "photos side side 3"],
    vectors: Float32[ndarray, "n d"],
) -> None:
    """Store the start's vectors of the first photos (step 0), or compare the neighbours by these with them.

    `vectors` may be those of more photos than given.
    """
    num_photos = min(_NUM_PHOTOS, len(photos), len(vectors))
    encoded = io.BytesIO()
    if step == 0:
        np.save(encoded, vectors[:num_photos])
        storage.write_bytes(start_vectors_uri(run_uri), encoded.getvalue())
    elif storage.exists(start_vectors_uri(run_uri)):
        start = np.load(io.BytesIO(storage.read_bytes(start_vectors_uri(run_uri))))[:num_photos]
        # Fewer photos if more workers shared the pairs at the start.
        grid = neighbour_grid(photos[: len(start)], start, vectors[: len(start)])
        grid.save(encoded, "JPEG", quality=85)
        storage.write_bytes(neighbour_grid_uri(run_uri, step), encoded.getvalue())


def neighbour_grid(
    photos: UInt8[ndarray, "photos side side 3"],
    start: Float32[ndarray, "photos d"],
    fine_tuned: Float32[ndarray, "photos d"],
) -> Image.Image:
    """One row for each of the first photos: the photo, its neighbours by the start, by the fine-tuned model.

    `start` and `fine_tuned` are the vectors of the photos by each model.
    """
    small = [np.asarray(Image.fromarray(photo).resize((_PHOTO_PX, _PHOTO_PX))) for photo in photos]
    gap = np.full((_PHOTO_PX, _GAP_PX, 3), 255, dtype=np.uint8)
    grid_rows = []
    for query in range(min(_NUM_QUERIES, len(photos))):
        by_start, by_fine_tuned = (
            [small[row] for row in nearest_photos(vectors, query)] for vectors in (start, fine_tuned)
        )
        grid_rows.append(np.concatenate([small[query], gap, *by_start, gap, *by_fine_tuned], axis=1))
    return Image.fromarray(np.concatenate(grid_rows))


def nearest_photos(vectors: Float32[ndarray, "photos d"], query: int) -> Sequence[int]:
    """The rows of the photos most similar to row `query`, nearest first, without the query itself."""
    _, rows = exact_search(vectors[query][None], vectors, min(_NUM_NEIGHBOURS + 1, len(vectors)))
    return [int(row) for row in rows[0] if row != query][:_NUM_NEIGHBOURS]
