"""Photos as shards store them: always a JPEG, upright, without metadata.

An upright JPEG in RGB or grey keeps its coded pixels bit by bit, because encoding twice loses quality. All
other photos (PNG, WebP, alpha, CMYK, EXIF rotation, too large) are re-encoded from the output of
`decode_image`, which is what training and serving would have decoded.
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
_PHASH_INPUT_PX = 32
_PHASH_BYTES = 16
# Standard deviation over the 32 x 32 grey thumbnail (0 to 255) below which a phash carries no information: a
# uniform surface with strong camera noise has 0.5, the plainest of 2,620 real product photos 8.1.
_FLAT_BELOW = 3.0


@dataclass(frozen=True)
class Photo:
    """A photo ready for a shard."""

    data: bytes
    """A JPEG."""
    width: int
    height: int
    phash: bytes | None
    """128 bits; None for a photo of one colour, where only noise would decide them."""
    is_original: bool
    """Whether `data` equals the bytes of the catalogue's file."""


def read_photo(photo: str | bytes, section: PackConfig) -> Photo:
    """Read, check and convert the photo of a row, given as a URI or as bytes.

    Raises: MissingError if there is no file; UnreadableImage with a reason of `fetch` or `decode_image`.
    """
    if isinstance(photo, bytes):
        require_size(len(photo), "photo", section)
    data = photo if isinstance(photo, bytes) else fetch(photo, section)
    decoded = decode_image(data, max_pixels=int(section.max_megapixels * 1e6))
    resized = _within(decoded, section.max_side_px)
    stripped = _stripped_original(data) if resized is decoded else None
    return Photo(
        data=stripped or _encode(resized, _rgb_profile(data)),
        width=resized.width,
        height=resized.height,
        phash=phash(resized),
        is_original=stripped == data,
    )


def phash(photo: Image.Image) -> bytes | None:
    """A perceptual hash of 128 bits: photos that look alike differ in few of them. None for a uniform photo.

    The first 64 bits are the pHash (signs of the lowest frequencies of a cosine transform of the grey photo).
    The mean of red, green and blue follows as a unary number of 16 bits each: one bit per step of 16 of 255.
    """
    import imagehash  # imports SciPy, which only packing needs

    small = photo.convert("L").resize(
        (_PHASH_INPUT_PX, _PHASH_INPUT_PX), Image.Resampling.LANCZOS, reducing_gap=3.0
    )
    if float(np.asarray(small, dtype=np.float32).std()) < _FLAT_BELOW:
        return None
    bits = [imagehash.phash(small).hash.ravel()]
    means = np.asarray(photo.resize((1, 1), Image.Resampling.BOX), dtype=np.int64).ravel()
    bits += [np.arange(16) < mean // 16 for mean in means]
    return np.packbits(np.concatenate(bits)).tobytes().ljust(_PHASH_BYTES, b"\0")


def _within(photo: Image.Image, max_side_px: int | None) -> Image.Image:
    side = max(photo.size)
    if max_side_px is None or side <= max_side_px:
        return photo
    width, height = (max(1, round(length * max_side_px / side)) for length in photo.size)
    return photo.resize((width, height), Image.Resampling.LANCZOS)


def _stripped_original(data: bytes) -> bytes | None:
    """The JPEG with its coded pixels and no metadata; None for a photo that must be re-encoded."""
    if not jpeg.is_jpeg(data):
        return None
    header = _header(data)
    if header.mode not in ("RGB", "L") or orientation_of(header) != 1:
        return None
    try:
        return jpeg.strip_metadata(data)
    except ValueError:  # Pillow also decodes files with garbage between segments
        return None


def _encode(photo: Image.Image, profile: bytes | None) -> bytes:
    if max(photo.size) > _JPEG_MAX_SIDE_PX:
        width, height = photo.size
        message = (
            f"photo has {width} x {height} pixels, a side of a JPEG at most {_JPEG_MAX_SIDE_PX}; "
            "make it smaller, or set pack.max_side_px"
        )
        raise UnreadableImage(message, "too_many_pixels")
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=_JPEG_QUALITY, icc_profile=profile)
    return jpeg.strip_metadata(buffer.getvalue())  # Pillow copies comments


def _rgb_profile(data: bytes) -> bytes | None:
    """The ICC profile, if it is one for RGB: stored photos are RGB."""
    profile = _header(data).info.get("icc_profile")
    return profile if profile and profile[16:20] == b"RGB " else None


def _header(data: bytes) -> Image.Image:
    """The photo opened without decoding. `decode_image` has accepted it before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # damaged metadata
        return Image.open(io.BytesIO(data))
