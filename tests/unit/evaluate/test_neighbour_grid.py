"""The neighbour grid: the position of every photo, checked by grey levels."""

from __future__ import annotations

import numpy as np

from raysys.evaluate.neighbour_grid import nearest_photos, neighbour_grid


def on_a_circle(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_nearest_photos_exclude_the_query_but_not_its_copy() -> None:
    vectors = on_a_circle(0, 50, 10, 0, 30, 90)
    assert list(nearest_photos(vectors, 0)) == [3, 2, 4, 1]
    assert list(nearest_photos(vectors, 3)) == [0, 2, 4, 1]


def test_row_shows_query_neighbours_by_start_and_by_fine_tuned_model() -> None:
    shades = [0, 50, 100, 150, 200]
    photos = np.stack([np.full((16, 16, 3), shade, np.uint8) for shade in shades])
    grid = np.asarray(neighbour_grid(photos, on_a_circle(0, 10, 20, 30, 40), on_a_circle(0, 40, 30, 20, 10)))
    assert grid.shape == (5 * 64, 9 * 64 + 2 * 8, 3)
    centres = [
        32,
        *(72 + 32 + 64 * column for column in range(4)),
        *(336 + 32 + 64 * column for column in range(4)),
    ]
    assert [int(grid[32, x, 0]) for x in centres] == [0, 50, 100, 150, 200, 200, 150, 100, 50]
    assert (grid[:, 64:72] == 255).all()


def test_grid_of_few_photos_is_smaller() -> None:
    photos = np.zeros((2, 8, 8, 3), np.uint8)
    vectors = on_a_circle(0, 10)
    assert neighbour_grid(photos, vectors, vectors).size == (3 * 64 + 2 * 8, 2 * 64)
