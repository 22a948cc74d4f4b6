"""Random changes to training photos, a pure function of (seed, epoch, item): every run makes the same."""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image

from raysys.config.schema import AugmentConfig
from raysys.encoder.preprocess import ImagePreprocessing, to_pixels


def item_rng(seed: int, epoch: int, item_id: str) -> np.random.Generator:
    """The generator that decides everything random about one sample of one epoch."""
    return np.random.default_rng([seed, epoch, zlib.crc32(item_id.encode())])


def augmented_pixels(
    picture: Image.Image, how: ImagePreprocessing, section: AugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """The picture turned, cropped, flipped, lit and erased at random, at the model's size (uint8 RGB)."""
    if section.rotate_degrees:
        picture = _rotate(picture, section.rotate_degrees * rng.uniform(-1.0, 1.0), how.size_px)
    picture = _crop(picture, section.crop_min_area, rng)
    if rng.random() < section.flip_probability:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = _relight(to_pixels(picture, how), section, rng)
    return _erase(pixels, rng) if rng.random() < section.erase_probability else pixels


def _rotate(picture: Image.Image, degrees: float, size_px: int) -> Image.Image:
    """Turned about its middle; the corners take the colour of the photo's own corner.

    Twice the model's size is enough to turn: on a 256 px photo that takes 0.5 ms instead of 2.1.
    """
    small = picture.reduce(max(1, min(picture.size) // (2 * size_px)))
    return small.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=small.getpixel((0, 0)))


def _crop(picture: Image.Image, min_area: float, rng: np.random.Generator) -> Image.Image:
    """A crop of random area and slightly random shape (random resized crop, Szegedy et al. 2014)."""
    if min_area >= 1.0:
        return picture
    area, stretch = rng.uniform(min_area, 1.0), np.exp(rng.uniform(-0.2, 0.2))
    width = round(picture.width * min(1.0, np.sqrt(area * stretch)))
    height = round(picture.height * min(1.0, np.sqrt(area / stretch)))
    left = int(rng.integers(0, picture.width - width + 1))
    top = int(rng.integers(0, picture.height - height + 1))
    return picture.crop((left, top, left + max(width, 1), top + max(height, 1)))


def _relight(pixels: np.ndarray, section: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    if not section.brightness and not section.contrast:
        return pixels
    bright = 1.0 + section.brightness * rng.uniform(-1.0, 1.0)
    steep = 1.0 + section.contrast * rng.uniform(-1.0, 1.0)
    values = pixels.astype(np.float32)
    mean = values.mean()
    return np.asarray(((values - mean) * steep + mean) * bright).clip(0, 255).astype(np.uint8)


def _erase(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = len(pixels)
    height, width = (int(side) for side in rng.integers(size // 8, size // 2 + 1, 2))
    top, left = int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1))
    erased = pixels.copy()
    erased[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return erased
