"""A faster JPEG decoder where it is installed: simplejpeg, which gives Pillow's pixels bit by bit.

Both stand on libjpeg-turbo; without Pillow's way through its own buffers a photo of a megapixel took half the
time. Whatever it hesitates over is left to Pillow, which decides what is damaged.
"""

from __future__ import annotations

import functools
from typing import Any

from PIL import Image


def decode_jpeg(data: Any, picture: Image.Image) -> Image.Image | None:
    """The photo of an opened `picture` in RGB, not turned; None if Pillow has to decode it."""
    decoder = _decoder()
    if decoder is None or picture.format != "JPEG" or picture.mode != "RGB":
        return None
    try:
        return Image.fromarray(decoder(data, "RGB", strict=True))
    except ValueError:  # a warning of libjpeg's is one here
        return None


@functools.cache
def _decoder() -> Any:
    try:
        import simplejpeg
    except ImportError:  # the extra `fast` was not installed
        return None
    return simplejpeg.decode_jpeg
