"""The media type of a photo, by its first bytes: tars of other tools hold more than JPEG."""

from __future__ import annotations

_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)


def media_type_of(photo: bytes) -> str:
    """The type for Content-Type; `application/octet-stream`, which browsers do not run, for other bytes."""
    if photo[:4] == b"RIFF" and photo[8:12] == b"WEBP":
        return "image/webp"
    if photo[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    return next((name for magic, name in _MAGIC if photo.startswith(magic)), "application/octet-stream")
