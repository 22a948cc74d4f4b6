"""A photo of a catalogue as it will stand in a shard: always a JPEG, upright, without metadata.

A JPEG that is upright and RGB or grey keeps its coded pixels bit by bit: encoding twice costs quality for
nothing. Everything else (PNG, WebP, alpha, CMYK, a turned phone photo, too large a one) is encoded anew
from what `decode_image` sees, which is what training and serving would have seen.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from raysys.config.schema import PackConfig
from raysys.encoder.preprocess import decode_image, orientation_of
from raysys.errors import UnreadableImage
from raysys.pack import jpeg
from raysys.pack.fetch import fetch, require_size

_JPEG_QUALITY = 95
_JPEG_MAX_SIDE_PX = 65_500  # libjpeg's limit
_HASH_INPUT_PX = 32
_HASH_BYTES = 16
# Standard deviation over the 32 x 32 grey picture (of 255) below which a hash says nothing: a uniform
# surface with strong camera noise has 0.5, the plainest of 2,620 real product photos 8.1.
_FLAT_BELOW = 3.0


@dataclass(frozen=True)
class Photo:
    """What a shard stores of a photo, and what tells near-equal photos apart."""

    data: bytes  # a JPEG
    width: int
    height: int
    perceptual_hash: bytes | None  # 128 bits; None for a flat picture, whose hash is made of noise
    is_original: bool  # the bytes are those of the catalogue's file


def read_photo(image: str | bytes, section: PackConfig) -> Photo:
    """The photo that a row names (a URI) or holds (bytes).

    Raises: MissingError if there is no file; UnreadableImage with a reason of `fetch` or `decode_image`.
    """
    if isinstance(image, bytes):
        require_size(len(image), "photo", section)
    data = image if isinstance(image, bytes) else fetch(image, section)
    picture = decode_image(data, max_pixels=int(section.max_megapixels * 1e6))
    smaller = _within(picture, section.max_side_px)
    kept = _kept_as_it_is(data) if smaller is picture else None
    return Photo(
        data=kept or _encoded(smaller, _rgb_profile(data)),
        width=smaller.width,
        height=smaller.height,
        perceptual_hash=perceptual_hash(smaller),
        is_original=kept == data,
    )


def perceptual_hash(picture: Image.Image) -> bytes | None:
    """128 bits of which few differ between pictures that look alike; None for a flat picture.

    64 are the pHash (signs of the lowest frequencies of a cosine transform), which knows no colour. Then each
    of red, green and blue counts to 16 in ones by its mean: a step of 16 of 255 is one more bit.
    """
    import imagehash  # brings SciPy along, which only packing needs

    small = picture.convert("L").resize(
        (_HASH_INPUT_PX, _HASH_INPUT_PX), Image.Resampling.LANCZOS, reducing_gap=3.0
    )
    if float(np.asarray(small, dtype=np.float32).std()) < _FLAT_BELOW:
        return None
    bits = [imagehash.phash(small).hash.ravel()]
    means = np.asarray(picture.resize((1, 1), Image.Resampling.BOX), dtype=np.int64).ravel()
    bits += [np.arange(16) < mean // 16 for mean in means]
    return np.packbits(np.concatenate(bits)).tobytes().ljust(_HASH_BYTES, b"\0")


def _within(picture: Image.Image, max_side_px: int | None) -> Image.Image:
    side = max(picture.size)
    if max_side_px is None or side <= max_side_px:
        return picture
    width, height = (max(1, round(length * max_side_px / side)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _kept_as_it_is(data: bytes) -> bytes | None:
    """The JPEG with its own coded pixels, or None for a photo that must be encoded anew."""
    if not jpeg.is_jpeg(data):
        return None
    picture = _header(data)
    if picture.mode not in ("RGB", "L") or orientation_of(picture) != 1:
        return None
    try:
        return jpeg.strip_metadata(data)
    except ValueError:  # Pillow reads over what is no row of segments
        return None


def _encoded(picture: Image.Image, profile: bytes | None) -> bytes:
    if max(picture.size) > _JPEG_MAX_SIDE_PX:
        width, height = picture.size
        message = (
            f"photo has {width} x {height} pixels, a side of a JPEG at most {_JPEG_MAX_SIDE_PX}; "
            "make it smaller, or set pack.max_side_px"
        )
        raise UnreadableImage(message, "too_many_pixels")
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=_JPEG_QUALITY, icc_profile=profile)
    return jpeg.strip_metadata(encoded.getvalue())  # Pillow carries comments over


def _rgb_profile(data: bytes) -> bytes | None:
    """The colour profile that still holds once the photo is RGB."""
    profile = _header(data).info.get("icc_profile")
    return profile if profile and profile[16:20] == b"RGB " else None


def _header(data: bytes) -> Image.Image:
    """The photo, opened but not decoded; that it can be was seen before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # damaged metadata
        return Image.open(io.BytesIO(data))
