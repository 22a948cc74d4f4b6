"""Faster JPEG decoding with simplejpeg, if it is installed; the pixels are identical to Pillow's.

Both use libjpeg-turbo. Without the copies through Pillow's buffers, a photo of one megapixel took half the
time. When simplejpeg reports a warning, Pillow decodes the photo and decides whether it is damaged.
"""

from __future__ import annotations

import functools
from typing import Any

from PIL import Image

_WARNINGS = ("Corrupt JPEG data", "Premature end of JPEG file")


def decode_jpeg(data: Any, image: Image.Image) -> Image.Image | None:
    """The RGB pixels of an opened JPEG `image`, without EXIF rotation; None if Pillow must decode it."""
    decoder = _decoder()
    if decoder is None or image.format != "JPEG" or image.mode != "RGB":
        return None
    try:
        return Image.fromarray(decoder(data, "RGB", strict=True))
    except ValueError:  # strict: a libjpeg warning is an error
        return None


def scan_damage(data: Any, image: Image.Image) -> str | None:
    """What libjpeg warns about while it decodes an opened JPEG `image`, such as bytes that are no valid code.

    Pillow ignores these warnings: its pixels are gray or shifted from there on. None also for other formats.
    """
    decoder = _decoder()
    if decoder is None or image.format not in ("JPEG", "MPO"):  # MPO: a JPEG with previews behind it
        return None
    try:
        decoder(data, {"L": "GRAY", "CMYK": "CMYK"}.get(image.mode, "RGB"), strict=True)
    except ValueError as error:
        return str(error) if str(error).startswith(_WARNINGS) else None
    return None


@functools.cache
def _decoder() -> Any:
    try:
        import simplejpeg
    except ImportError:  # the extra `fast` is not installed
        return None
    return simplejpeg.decode_jpeg
