"""The contact sheet: which photo stands where, by colours."""

from __future__ import annotations

import numpy as np

from raysys.train.validation.neighbour_grid import nearest, neighbour_grid


def on_a_circle(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_nearest_leave_out_the_photo_itself_even_beside_its_copy() -> None:
    vectors = on_a_circle(0, 50, 10, 0, 30, 90)
    assert list(nearest(vectors, 0)) == [3, 2, 4, 1]
    assert list(nearest(vectors, 3)) == [0, 2, 4, 1]


def test_a_row_is_a_photo_its_neighbours_before_and_after() -> None:
    shades = [0, 50, 100, 150, 200]
    photos = np.stack([np.full((16, 16, 3), shade, np.uint8) for shade in shades])
    sheet = np.asarray(neighbour_grid(photos, on_a_circle(0, 10, 20, 30, 40), on_a_circle(0, 40, 30, 20, 10)))
    assert sheet.shape == (5 * 64, 9 * 64 + 2 * 8, 3)
    middles = [
        32,
        *(72 + 32 + 64 * place for place in range(4)),
        *(336 + 32 + 64 * place for place in range(4)),
    ]
    assert [int(sheet[32, x, 0]) for x in middles] == [0, 50, 100, 150, 200, 200, 150, 100, 50]
    assert (sheet[:, 64:72] == 255).all()


def test_few_photos_make_a_small_sheet() -> None:
    photos = np.zeros((2, 8, 8, 3), np.uint8)
    vectors = on_a_circle(0, 10)
    assert neighbour_grid(photos, vectors, vectors).size == (3 * 64 + 2 * 8, 2 * 64)
