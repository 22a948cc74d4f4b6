"""JPEG metadata removal that leaves the coded pixels unchanged, bit by bit.

A JPEG is a sequence of segments, each a marker (0xFF and a code) and, for most codes, a length and that many
bytes; a start-of-scan segment is followed by entropy-coded data up to the next marker (ITU-T T.81, annex B).
Dropping the segments that no decoder needs leaves the pixels untouched. Pillow can only re-encode, and
libraries that remove EXIF keep the other metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SCAN, _END = 0xDA, 0xD9
_APP0, _APP2, _APP14, _APP15, _COMMENT = 0xE0, 0xE2, 0xEE, 0xEF, 0xFE
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}  # TEM and restart markers
# In entropy-coded data, 0xFF00 is an escaped 0xFF, and restart markers are part of the data.
_NEXT_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes start like a JPEG (also like an MPO, a file of several JPEGs)."""
    return data.startswith(b"\xff\xd8\xff")


def strip_metadata(data: bytes) -> bytes:
    """The JPEG with only JFIF, Adobe and ICC application segments, cut behind its end marker.

    EXIF (with the orientation), XMP, IPTC, comments, thumbnails and further photos of the file are removed.
    Raises: ValueError for bytes that are not a sequence of segments.
    """
    needed = (kept for segment in _segments(data) if (kept := _needed_bytes(segment)))
    return b"".join([b"\xff\xd8", *needed, b"\xff\xd9"])


def _segments(data: bytes) -> Iterator[bytes]:
    """The segments (a scan with its data) between the start and end markers of the first photo."""
    if not is_jpeg(data):
        raise ValueError("does not begin as a JPEG")
    position = 2
    while position < len(data):
        if data[position] != 0xFF:
            raise ValueError(f"no marker at byte {position}")
        while data[position : position + 1] == b"\xff":  # fill bytes may precede a marker
            position += 1
        code = int.from_bytes(data[position : position + 1], "big")
        if code == _END:
            return
        end = position + 1 if code in _WITHOUT_LENGTH else _end_of_segment(data, position + 1)
        if code == _SCAN:
            marker = _NEXT_MARKER.search(data, end)
            end = marker.start() if marker else len(data)
        yield b"\xff" + data[position:end]
        position = end


def _end_of_segment(data: bytes, position: int) -> int:
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2 or position + length > len(data):
        raise ValueError(f"a segment at byte {position} of {len(data)} declares {length} bytes")
    return position + length


def _needed_bytes(segment: bytes) -> bytes:
    """The part of a segment that decoders need; empty for metadata."""
    code, content = segment[1], segment[4:]
    if code == _APP0 and content.startswith(b"JFIF\0") and len(content) >= 14:
        return b"\xff\xe0\x00\x10" + content[:12] + b"\0\0"  # without the thumbnail it may hold
    if code == _APP2 and content.startswith(b"ICC_PROFILE\0"):
        return segment
    if code == _APP14 and content.startswith(b"Adobe"):
        return segment  # defines the colour transform of the channels
    return b"" if code == _COMMENT or _APP0 <= code <= _APP15 else segment
