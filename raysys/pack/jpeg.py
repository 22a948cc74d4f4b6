"""A JPEG without its metadata, its pixels bit by bit the same.

A JPEG is a row of segments, each a marker (0xFF and a kind) and, for most kinds, a length and that many
bytes; behind a start-of-scan segment stands entropy-coded data until the next marker (ITU-T T.81, annex
B). Leaving out the segments that no decoder needs leaves the coded pixels untouched. Pillow can only
encode anew; libraries that leave EXIF out leave the rest in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_START, _SCAN, _END = 0xD8, 0xDA, 0xD9
_APP0, _APP2, _APP14, _APP15, _COMMENT = 0xE0, 0xE2, 0xEE, 0xEF, 0xFE
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}  # TEM and restart markers
# Inside entropy-coded data 0xFF00 is a stuffed 0xFF, and restart markers belong to the data.
_NEXT_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG does (also one of several pictures in a file, MPO)."""
    return data.startswith(b"\xff\xd8\xff")


def strip_metadata(data: bytes) -> bytes:
    """The JPEG with JFIF, Adobe and ICC segments as its only application data, and nothing behind its end.

    EXIF, XMP, IPTC, comments, thumbnails and further pictures are gone; the orientation is, too.
    Raises: ValueError for bytes that are no row of segments.
    """
    return b"".join([b"\xff\xd8", *(kept for part in _parts(data) if (kept := _kept(part))), b"\xff\xd9"])


def _parts(data: bytes) -> Iterator[bytes]:
    """Segments (a scan with its data) between start and end of the picture."""
    if not is_jpeg(data):
        raise ValueError("does not begin as a JPEG")
    place = 2
    while place < len(data):
        if data[place] != 0xFF:
            raise ValueError(f"no marker at byte {place}")
        while data[place : place + 1] == b"\xff":  # a marker may be filled up in front
            place += 1
        kind = int.from_bytes(data[place : place + 1], "big")
        if kind == _END:
            return
        end = place + 1 if kind in _WITHOUT_LENGTH else _end_of_segment(data, place + 1)
        if kind == _SCAN:
            marker = _NEXT_MARKER.search(data, end)
            end = marker.start() if marker else len(data)
        yield b"\xff" + data[place:end]
        place = end


def _end_of_segment(data: bytes, place: int) -> int:
    length = int.from_bytes(data[place : place + 2], "big")
    if length < 2 or place + length > len(data):
        raise ValueError(f"a segment at byte {place} of {len(data)} promises {length} bytes")
    return place + length


def _kept(part: bytes) -> bytes:
    kind, said = part[1], part[4:]
    if kind == _APP0 and said.startswith(b"JFIF\0") and len(said) >= 14:
        return b"\xff\xe0\x00\x10" + said[:12] + b"\0\0"  # without the thumbnail it may hold
    if kind == _APP2 and said.startswith(b"ICC_PROFILE\0"):
        return part
    if kind == _APP14 and said.startswith(b"Adobe"):
        return part  # says how the channels are to be read
    return b"" if kind == _COMMENT or _APP0 <= kind <= _APP15 else part
