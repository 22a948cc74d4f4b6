"""Augmentation is a pure function of (seed, epoch, item), and each change has its configured effect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from raysys.config.schema import AugmentConfig
from raysys.encoder.preprocess import ImagePreprocessing, to_pixels
from raysys.stream.augment import augmented_pixels, item_rng

PREPROCESSING = ImagePreprocessing(size_px=16)
OFF: dict[str, Any] = {
    "crop_min_area": 1.0,
    "flip_probability": 0.0,
    "rotate_degrees": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "erase_probability": 0.0,
}
NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 20, 3), dtype=np.uint8))
MODEL_SIZED = NOISE.resize((16, 16))  # not resampled
UNCHANGED = to_pixels(MODEL_SIZED, PREPROCESSING)


def augmented(
    photo: Image.Image, item: str = "i1", *, seed: int = 7, epoch: int = 0, **enabled: float
) -> np.ndarray:
    section = AugmentConfig.model_validate({**OFF, **enabled})
    return augmented_pixels(photo, PREPROCESSING, section, item_rng(seed, epoch, item))


def fully_augmented(epoch: int = 0, item: str = "i1", seed: int = 7) -> np.ndarray:
    return augmented(
        NOISE, item, seed=seed, epoch=epoch, crop_min_area=0.5, flip_probability=0.5, rotate_degrees=20.0,
        brightness=0.2, contrast=0.2, erase_probability=0.5,
    )  # fmt: skip


def test_same_seed_epoch_and_item_give_the_same_pixels() -> None:
    assert np.array_equal(fully_augmented(), fully_augmented())


def test_another_epoch_item_or_seed_gives_other_pixels() -> None:
    views = [fully_augmented(), fully_augmented(epoch=1), fully_augmented(item="i2"), fully_augmented(seed=8)]
    assert len({view.tobytes() for view in views}) == 4


def test_output_has_the_model_s_size_for_any_photo_size() -> None:
    for size in ((1, 1), (3, 200), (16, 16), (90, 40)):
        photo = Image.new("RGB", size, "red")
        pixels = augmented(photo, crop_min_area=0.1, rotate_degrees=90.0, erase_probability=1.0)
        assert (pixels.shape, pixels.dtype.name) == ((16, 16, 3), "uint8")


@pytest.mark.parametrize("photo", [NOISE, MODEL_SIZED])
def test_without_augmentation_pixels_are_unchanged(photo: Image.Image) -> None:
    assert np.array_equal(augmented(photo), to_pixels(photo, PREPROCESSING))


def test_flip_mirrors_left_and_right() -> None:
    assert np.array_equal(augmented(MODEL_SIZED, flip_probability=1.0), UNCHANGED[:, ::-1])


def test_flip_rate_matches_its_probability() -> None:
    flips = [
        np.array_equal(augmented(MODEL_SIZED, f"i{n}", flip_probability=0.5), UNCHANGED[:, ::-1])
        for n in range(200)
    ]
    # 100 +- 7.1 (binomial); four standard deviations either way.
    assert 72 <= sum(flips) <= 128


def test_erasing_fills_one_rectangle_with_one_colour() -> None:
    for number in range(20):
        erased = augmented(MODEL_SIZED, f"i{number}", erase_probability=1.0)
        rows, columns = np.nonzero((erased != UNCHANGED).any(axis=2))
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


def test_contrast_scales_distances_from_the_mean() -> None:
    two_greys = Image.new("RGB", (16, 16), (50, 50, 50))
    two_greys.paste((150, 150, 150), (8, 0, 16, 16))
    for number in range(20):
        pixels = augmented(two_greys, f"i{number}", contrast=0.2).astype(int)
        low, high = pixels.min(), pixels.max()
        assert 39 <= low <= 60  # 100 - 50 * (1 +- 0.2)
        assert abs((low + high) / 2 - 100) <= 1


def test_crop_covers_at_least_its_minimum_area() -> None:
    # Red grows to the right and green downwards, so the corner colours give the size of the crop.
    ramp = np.zeros((256, 256, 3), np.uint8)
    ramp[:, :, 0], ramp[:, :, 1] = np.arange(256)[None, :], np.arange(256)[:, None]
    for number in range(30):
        pixels = augmented(Image.fromarray(ramp), f"i{number}", crop_min_area=0.5).astype(int)
        width = pixels[0, -1, 0] - pixels[0, 0, 0] + 256 / 16
        height = pixels[-1, 0, 1] - pixels[0, 0, 1] + 256 / 16
        # A crop is at most as wide and high as the photo, so a stretched one may lose a factor exp(-0.2).
        assert width * height / 256**2 >= 0.5 * np.exp(-0.2) - 0.05


def test_rotation_fills_corners_with_the_colour_of_the_photo_s_corner() -> None:
    photo = Image.new("RGB", (64, 64), (200, 30, 30))
    assert np.array_equal(augmented(photo, rotate_degrees=45.0), to_pixels(photo, PREPROCESSING))
