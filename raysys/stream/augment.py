"""Random augmentation of training photos, a pure function of (seed, epoch, item): the same in every run."""

from __future__ import annotations

import zlib

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from raysys.config.schema import AugmentConfig
from raysys.encoder.preprocess import ImagePreprocessing, to_pixels


def item_rng(seed: int, epoch: int, item_id: str) -> np.random.Generator:
    """The random generator of one sample in one epoch."""
    return np.random.default_rng([seed, epoch, zlib.crc32(item_id.encode())])


def augmented_pixels(
    photo: Image.Image, preprocessing: ImagePreprocessing, section: AugmentConfig, rng: np.random.Generator
) -> UInt8[ndarray, "size size 3"]:
    """The photo, randomly rotated, cropped, flipped, relit and partly erased, at the model's size (RGB)."""
    if section.rotate_degrees:
        photo = _rotate(photo, section.rotate_degrees * rng.uniform(-1.0, 1.0), preprocessing.size_px)
    photo = _crop(photo, section.crop_min_area, rng)
    if rng.random() < section.flip_probability:
        photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = _relight(to_pixels(photo, preprocessing), section, rng)
    return _erase(pixels, rng) if rng.random() < section.erase_probability else pixels


def _rotate(photo: Image.Image, degrees: float, size_px: int) -> Image.Image:
    """Rotate about the centre; the corners are filled with the colour of the photo's top left pixel.

    The photo is first reduced, to no less than twice the model's size: for a 256 px photo, 0.5 ms instead
    of 2.1.
    """
    small = photo.reduce(max(1, min(photo.size) // (2 * size_px)))
    return small.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=small.getpixel((0, 0)))


def _crop(photo: Image.Image, min_area: float, rng: np.random.Generator) -> Image.Image:
    """A crop of random area and slightly random aspect ratio (random resized crop, Szegedy et al. 2014)."""
    if min_area >= 1.0:
        return photo
    area, aspect = rng.uniform(min_area, 1.0), np.exp(rng.uniform(-0.2, 0.2))
    width = round(photo.width * min(1.0, np.sqrt(area * aspect)))
    height = round(photo.height * min(1.0, np.sqrt(area / aspect)))
    left = int(rng.integers(0, photo.width - width + 1))
    top = int(rng.integers(0, photo.height - height + 1))
    return photo.crop((left, top, left + max(width, 1), top + max(height, 1)))


def _relight(pixels: ndarray, section: AugmentConfig, rng: np.random.Generator) -> ndarray:
    if not section.brightness and not section.contrast:
        return pixels
    brightness = 1.0 + section.brightness * rng.uniform(-1.0, 1.0)
    contrast = 1.0 + section.contrast * rng.uniform(-1.0, 1.0)
    values = pixels.astype(np.float32)
    mean = values.mean()
    return np.asarray(((values - mean) * contrast + mean) * brightness).clip(0, 255).astype(np.uint8)


def _erase(pixels: ndarray, rng: np.random.Generator) -> ndarray:
    """Fill a random rectangle with a random colour; its sides are 1/8 to 1/2 of the photo's."""
    size = len(pixels)
    height, width = (int(side) for side in rng.integers(size // 8, size // 2 + 1, 2))
    top, left = int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1))
    erased = pixels.copy()
    erased[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return erased
