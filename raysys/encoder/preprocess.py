"""Photo preprocessing: training, embedding, evaluation and serving all call these functions.

A photo is decoded to upright RGB (EXIF orientation applied, alpha composed on white, 16 bits scaled to 8)
and resized with Pillow as the checkpoint's own processor does, so that plain `transformers` gives the same
pixels. Pixels stay uint8 until they are on the model's device (`siglip.normalise`). This module does not
import torch, so that decoding workers start fast. Titles: see `text.py`.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import ExifTags, Image

from raysys.encoder.fast_jpeg import decode_jpeg
from raysys.errors import UnreadableImage

ImageBytes: TypeAlias = bytes | memoryview | Any  # Any: other buffers, such as pyarrow.Buffer
# Scaled decoding changes pixels slightly. With a margin of 1 the vectors of 131 real photos moved by up to
# 4e-3 (1 - cosine), with 2 that of a drawn photo by 2e-3; the limit is 1e-3.
_PARITY_MARGIN = 3
# Accepted formats. Pillow reads more, but some of them start other programs (EPS) or are not photos.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000")
# EXIF orientation -> the operation that makes the stored image upright.
_ORIENTATION_TO_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The exceptions that Pillow raised on damaged bytes in a fuzz test, and their relatives: the photos of a
# WebDataset were not checked before.
_DAMAGE = (
    *(OSError, ValueError, SyntaxError, LookupError, RuntimeError, TypeError, struct.error, zlib.error),
    *(ArithmeticError, AssertionError, AttributeError, EOFError),
)


@dataclass(frozen=True)
class ImagePreprocessing:
    """How a decoded photo becomes the input of the image tower."""

    size_px: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resample: int = int(Image.Resampling.BICUBIC)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a prepared photo: height, width, RGB."""
        return (self.size_px, self.size_px, 3)

    @property
    def dtype(self) -> str:
        """Of a prepared photo: it is standardised on the model's device."""
        return "uint8"

    def __call__(self, photo: ImageBytes | Image.Image) -> UInt8[ndarray, "size size 3"]:
        """As `photo_pixels`."""
        return photo_pixels(photo, self)


class PhotoPreparation(Protocol):
    """How an encoded photo becomes the input of an image model, an array of fixed shape."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""

    @property
    def dtype(self) -> str:
        """Of the array, in numpy's words."""

    def __call__(self, photo: ImageBytes | Image.Image) -> ndarray:
        """Prepare a photo. Raises: UnreadableImage."""


def photo_pixels(
    photo: ImageBytes | Image.Image, preprocessing: ImagePreprocessing
) -> UInt8[ndarray, "size size 3"]:
    """The pixels of an encoded photo, or of an opened image, at the model's input size.

    Raises: UnreadableImage.
    """
    if isinstance(photo, Image.Image):
        return to_pixels(upright_rgb(photo), preprocessing)
    image = decode_image(photo, at_least_px=preprocessing.size_px * _PARITY_MARGIN)
    return to_pixels(image, preprocessing)


def decode_image(
    data: ImageBytes, *, max_pixels: int = 64_000_000, at_least_px: int | None = None
) -> Image.Image:
    """An upright RGB image from the bytes of a photo in one of the accepted formats.

    With `at_least_px`, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep at
    least `at_least_px` pixels. The decoder then skips the remaining pixels, which is several times faster.
    Raises: UnreadableImage with reason `not_an_image`, `too_many_pixels` or `damaged`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `max_pixels` is checked below
            warnings.simplefilter("ignore", UserWarning)  # damaged metadata is common in photos
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"photo has too many pixels ({error})", "too_many_pixels") from error
    except _DAMAGE as error:
        message = f"not a photo ({len(data)} bytes); give JPEG, PNG or WebP"
        raise UnreadableImage(message, "not_an_image") from error
    width, height = image.size
    if width * height > max_pixels:
        message = f"photo has {width} x {height} pixels, at most {max_pixels} are accepted; make it smaller"
        raise UnreadableImage(message, "too_many_pixels")
    if at_least_px is not None:
        image.draft(None, (at_least_px, at_least_px))  # affects only JPEG
    return upright_rgb(image, lambda: decode_jpeg(data, image, (width, height)))


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened image, 1 to 8; 1 is upright.

    Also 1 if the metadata is damaged, because the pixels may still be good.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE:
        return 1
    return orientation if isinstance(orientation, int) and orientation in _ORIENTATION_TO_TRANSPOSE else 1


def to_pixels(image: Image.Image, preprocessing: ImagePreprocessing) -> UInt8[ndarray, "size size 3"]:
    """The image resized to the model's square input, without cropping, as SigLIP's processor does."""
    size = (preprocessing.size_px, preprocessing.size_px)
    if image.size != size:
        image = image.resize(size, Image.Resampling(preprocessing.resample))
    return np.asarray(image, dtype=np.uint8)


def upright_rgb(
    image: Image.Image, decode_faster: Callable[[], Image.Image | None] = lambda: None
) -> Image.Image:
    """An opened image as RGB and upright. Pillow decodes it if `decode_faster` returns None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            rgb = decode_faster() or _to_rgb(image)
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        message = f"photo cannot be decoded ({error}); give an undamaged file"
        raise UnreadableImage(message, "damaged") from error
    transpose = _ORIENTATION_TO_TRANSPOSE.get(orientation_of(image))
    return rgb if transpose is None else rgb.transpose(transpose)


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # A plain convert("RGB") clips 16-bit values at 255, which turns the photo white.
        values = np.asarray(image, dtype=np.float32)
        is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and values.max(initial=0) > 255)
        scale = 257.0 if is_16_bit else 1.0
        return Image.fromarray((values / scale).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert() would copy an RGB image
