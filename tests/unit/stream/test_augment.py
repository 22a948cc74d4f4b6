"""Augmentation is a pure function of (seed, epoch, item), and each of its changes does what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from raysys.config.schema import AugmentConfig
from raysys.encoder.preprocess import ImagePreprocessing, to_pixels
from raysys.stream.augment import augmented_pixels, item_rng

HOW = ImagePreprocessing(size_px=16)
OFF: dict[str, Any] = {
    "crop_min_area": 1.0,
    "flip_probability": 0.0,
    "rotate_degrees": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "erase_probability": 0.0,
}
NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 20, 3), dtype=np.uint8))
SHARP = NOISE.resize((16, 16))  # already at the model's size, so that nothing is resampled
PLAIN = to_pixels(SHARP, HOW)


def augmented(
    picture: Image.Image, item: str = "i1", *, seed: int = 7, epoch: int = 0, **on: float
) -> np.ndarray:
    section = AugmentConfig.model_validate({**OFF, **on})
    return augmented_pixels(picture, HOW, section, item_rng(seed, epoch, item))


def everything(epoch: int = 0, item: str = "i1", seed: int = 7) -> np.ndarray:
    return augmented(
        NOISE, item, seed=seed, epoch=epoch, crop_min_area=0.5, flip_probability=0.5, rotate_degrees=20.0,
        brightness=0.2, contrast=0.2, erase_probability=0.5,
    )  # fmt: skip


def test_same_seed_epoch_and_item_give_the_same_pixels() -> None:
    assert np.array_equal(everything(), everything())


def test_other_epoch_item_or_seed_gives_others() -> None:
    views = [everything(), everything(epoch=1), everything(item="i2"), everything(seed=8)]
    assert len({view.tobytes() for view in views}) == 4


def test_output_has_the_model_s_size_whatever_the_photo_s() -> None:
    for size in ((1, 1), (3, 200), (16, 16), (90, 40)):
        picture = Image.new("RGB", size, "red")
        pixels = augmented(picture, crop_min_area=0.1, rotate_degrees=90.0, erase_probability=1.0)
        assert (pixels.shape, pixels.dtype.name) == ((16, 16, 3), "uint8")


@pytest.mark.parametrize("picture", [NOISE, SHARP])
def test_with_all_off_nothing_is_changed(picture: Image.Image) -> None:
    assert np.array_equal(augmented(picture), to_pixels(picture, HOW))


def test_certain_flip_mirrors_left_and_right() -> None:
    assert np.array_equal(augmented(SHARP, flip_probability=1.0), PLAIN[:, ::-1])


def test_flip_comes_about_as_often_as_asked() -> None:
    flips = [
        np.array_equal(augmented(SHARP, f"i{n}", flip_probability=0.5), PLAIN[:, ::-1]) for n in range(200)
    ]
    # 100 +- 7.1 (binomial); four deviations either way.
    assert 72 <= sum(flips) <= 128


def test_erasing_paints_one_rectangle_in_one_colour() -> None:
    for number in range(20):
        erased = augmented(SHARP, f"i{number}", erase_probability=1.0)
        rows, columns = np.nonzero((erased != PLAIN).any(axis=2))
        box = erased[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert len(np.unique(box.reshape(-1, 3), axis=0)) == 1
        # Sides between an eighth and a half of 16 pixels.
        assert 2 <= box.shape[0] <= 8
        assert 2 <= box.shape[1] <= 8


def test_brightness_is_a_factor_within_its_range() -> None:
    grey = Image.new("RGB", (16, 16), (100, 100, 100))
    values = [int(augmented(grey, f"i{number}", brightness=0.2)[0, 0, 0]) for number in range(50)]
    assert 79 <= min(values) < 90  # 100 * (1 - 0.2) = 80, less one for rounding down
    assert 110 < max(values) <= 120  # 100 * (1 + 0.2)


def test_contrast_moves_values_away_from_their_mean_or_towards_it() -> None:
    halves = Image.new("RGB", (16, 16), (50, 50, 50))
    halves.paste((150, 150, 150), (8, 0, 16, 16))
    for number in range(20):
        pixels = augmented(halves, f"i{number}", contrast=0.2).astype(int)
        low, high = pixels.min(), pixels.max()
        assert 39 <= low <= 60  # 100 - 50 * (1 +- 0.2)
        assert abs((low + high) / 2 - 100) <= 1


def test_crop_covers_at_least_its_share() -> None:
    # Red grows to the right and green downwards: the corners tell what was cut.
    ramp = np.zeros((256, 256, 3), np.uint8)
    ramp[:, :, 0], ramp[:, :, 1] = np.arange(256)[None, :], np.arange(256)[:, None]
    for number in range(30):
        pixels = augmented(Image.fromarray(ramp), f"i{number}", crop_min_area=0.5).astype(int)
        width = pixels[0, -1, 0] - pixels[0, 0, 0] + 256 / 16
        height = pixels[-1, 0, 1] - pixels[0, 0, 1] + 256 / 16
        # A side stops at the photo's own, so that a stretched crop may lose up to a factor exp(-0.2).
        assert width * height / 256**2 >= 0.5 * np.exp(-0.2) - 0.05


def test_rotation_fills_corners_with_the_photo_s_own_corner() -> None:
    picture = Image.new("RGB", (64, 64), (200, 30, 30))
    assert np.array_equal(augmented(picture, rotate_degrees=45.0), to_pixels(picture, HOW))
