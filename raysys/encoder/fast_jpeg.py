"""Faster JPEG decoding with simplejpeg; the pixels are identical to Pillow's, also at a reduced size.

Both use libjpeg-turbo. Without the copies through Pillow's buffers, a photo of one megapixel took half the
time. When simplejpeg reports a warning, Pillow decodes the photo and decides whether it is damaged.
"""

from __future__ import annotations

from typing import Any

import simplejpeg
from PIL import Image

_MIN_SCALABLE_PX = 8
_WARNINGS = ("Corrupt JPEG data", "Premature end of JPEG file")


def decode_jpeg(data: Any, image: Image.Image, full_size: tuple[int, int]) -> Image.Image | None:
    """The RGB pixels of an opened JPEG `image`, without EXIF rotation; None if Pillow must decode it.

    `full_size` is the stored width and height; `Image.draft` may have set a reduced size of `image`.
    """
    if image.format != "JPEG" or image.mode != "RGB":
        return None
    # simplejpeg decodes at the smallest n/8 that keeps a minimum size. Of a side of less than 8 pixels
    # several n/8 are equally long.
    width, height = image.size if image.size != full_size else (0, 0)
    if width and min(full_size) < _MIN_SCALABLE_PX:
        return None
    try:
        return Image.fromarray(
            simplejpeg.decode_jpeg(data, "RGB", min_width=width, min_height=height, strict=True)
        )
    except ValueError:  # strict: a libjpeg warning is an error
        return None


def scan_damage(data: Any, image: Image.Image) -> str | None:
    """What libjpeg warns about while it decodes an opened JPEG `image`, such as bytes that are no valid code.

    Pillow ignores these warnings: its pixels are gray or shifted from there on. None also for other formats.
    """
    if image.format not in ("JPEG", "MPO"):  # MPO: a JPEG with previews behind it
        return None
    try:
        simplejpeg.decode_jpeg(data, {"L": "GRAY", "CMYK": "CMYK"}.get(image.mode, "RGB"), strict=True)
    except ValueError as error:
        return str(error) if str(error).startswith(_WARNINGS) else None
    return None
