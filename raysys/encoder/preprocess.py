"""The one preprocessing (law 2): train, embed, evaluate and serve all call these functions.

Photos: decoded to RGB as they should be seen (EXIF orientation, alpha on white, 16 bits scaled) and
resized with Pillow as the checkpoint's own processor does, so that plain `transformers` gives the same
pixels; kept as uint8 until the model's device (`siglip.normalise`). No torch here: workers that decode
start fast. Titles: NFKC, lower case where the checkpoint wants it, padded to `max_length` and never
masked, as SigLIP was trained.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import ExifTags, Image

from raysys.encoder.fast_jpeg import decode_jpeg
from raysys.errors import UnreadableImage

ImageBytes: TypeAlias = bytes | memoryview | Any  # or a pyarrow.Buffer: whatever holds bytes
# Scaled decoding shifts pixels a little. With a margin of 1 the vectors of 131 real photos moved by up to
# 4e-3 (1 - cosine), with 2 a drawn one by 2e-3; law 2 allows 1e-3.
_PARITY_MARGIN = 3
# What photos come in. Pillow knows more, of which some start other programs (EPS) or hold no photo.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000")
# EXIF orientation -> what a viewer does with the stored picture.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow was seen to raise on damaged bytes; a fuzzed test holds the list complete enough.
_DAMAGE = (OSError, ValueError, SyntaxError, LookupError, RuntimeError, TypeError, struct.error, zlib.error)


@dataclass(frozen=True)
class ImagePreprocessing:
    """How a decoded photo becomes the model's input."""

    size_px: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resample: int = int(Image.Resampling.BICUBIC)


def photo_pixels(data: ImageBytes, how: ImagePreprocessing) -> UInt8[ndarray, "size size 3"]:
    """A photo at the model's size: what is embedded, served and compared."""
    return to_pixels(decode_image(data, at_least_px=how.size_px * _PARITY_MARGIN), how)


def decode_image(
    data: ImageBytes, *, max_pixels: int = 64_000_000, at_least_px: int | None = None
) -> Image.Image:
    """An RGB picture, upright, from the bytes of any photo Pillow knows.

    With `at_least_px` a JPEG may come out at 1/2, 1/4 or 1/8 of its size, as long as both sides keep so many
    pixels: its decoder then never makes the others, which is several times faster.
    Raises: UnreadableImage with reason `not_an_image`, `too_many_pixels` or `damaged`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is next
            warnings.simplefilter("ignore", UserWarning)  # damaged metadata, of which photos are full
            picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"photo has too many pixels ({error})", "too_many_pixels") from error
    except _DAMAGE as error:
        message = f"not a photo ({len(data)} bytes); give JPEG, PNG or WebP"
        raise UnreadableImage(message, "not_an_image") from error
    width, height = picture.size
    if width * height > max_pixels:
        message = f"photo has {width} x {height} pixels, at most {max_pixels} are accepted; make it smaller"
        raise UnreadableImage(message, "too_many_pixels")
    if at_least_px is not None:
        picture.draft(None, (at_least_px, at_least_px))  # does nothing but for a JPEG
    is_whole = picture.size == (width, height)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            rgb = (decode_jpeg(data, picture) if is_whole else None) or _to_rgb(picture)
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"photo cannot be decoded ({error}); give a whole one", "damaged") from error
    turn = _TURNS.get(orientation_of(picture))
    return rgb if turn is None else rgb.transpose(turn)


def orientation_of(picture: Image.Image) -> int:
    """How a stored picture must be turned to stand upright, as EXIF counts; 1 is upright.

    1, too, if its metadata is damaged: the photo may still be good.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE:
        return 1
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def to_pixels(picture: Image.Image, how: ImagePreprocessing) -> UInt8[ndarray, "size size 3"]:
    """The picture at the model's size, squeezed to a square as SigLIP's processor does."""
    if picture.size != (how.size_px, how.size_px):
        picture = picture.resize((how.size_px, how.size_px), Image.Resampling(how.resample))
    return np.asarray(picture, dtype=np.uint8)


def _to_rgb(picture: Image.Image) -> Image.Image:
    picture.load()
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        # A plain convert("RGB") clips 16-bit values at 255, which turns the photo white.
        deep = np.asarray(picture, dtype=np.float32)
        is_deep = picture.mode.startswith("I;16") or (picture.mode == "I" and deep.max(initial=0) > 255)
        scale = 257.0 if is_deep else 1.0
        return Image.fromarray((deep / scale).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # convert() copies even then
