"""A photo as the service reads it in JSON: base64 of the bytes of a file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from PIL import Image

Photo: TypeAlias = (
    "str | Path | bytes | Image.Image"  # a path or URI, the bytes of a file, or an opened image
)


def as_base64(photo: Photo) -> str:
    """The photo file as base64; of an opened image a PNG file with the pixels that an encoder would see.

    Raises: MissingError for a path without a file, UnreadableImage for an image that cannot be decoded.
    """
    return base64.b64encode(_file_of(photo)).decode()


def _file_of(photo: Photo) -> bytes:
    if isinstance(photo, bytes):
        return photo
    if isinstance(photo, str | Path):
        from raysys import storage  # imports pyarrow

        return storage.read_bytes(str(photo))
    from raysys.encoder.preprocess import upright_rgb

    file = io.BytesIO()
    upright_rgb(photo).save(file, "PNG", exif=b"")  # its orientation is already applied
    return file.getvalue()
