"""Metadata removal leaves the coded pixels of a JPEG unchanged."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
from numpy import ndarray
from PIL import Image

from raysys.encoder.preprocess import decode_image
from raysys.errors import UnreadableImage
from raysys.pack.jpeg import strip_metadata


def noise(mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(7).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def encoded(photo: Image.Image, **options: Any) -> bytes:
    data = io.BytesIO()
    photo.save(data, "JPEG", **options)
    return data.getvalue()


def pixels(data: bytes) -> ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def with_segments(data: bytes, *segments: tuple[int, bytes]) -> bytes:
    """The JPEG with segments inserted behind its start marker."""
    added = [
        bytes([0xFF, code]) + (len(content) + 2).to_bytes(2, "big") + content for code, content in segments
    ]
    return data[:2] + b"".join(added) + data[2:]


ENCODINGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "full chroma": {"subsampling": 0, "quality": 100},
}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", ENCODINGS.values(), ids=ENCODINGS)
def test_jpeg_without_metadata_keeps_its_bytes(mode: str, options: dict[str, Any]) -> None:
    data = encoded(noise(mode), **options)
    assert strip_metadata(data) == data


def test_metadata_and_bytes_behind_the_end_are_removed() -> None:
    data = encoded(noise())
    marked = with_segments(
        data,
        (0xE1, b"Exif\0\0secret"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0secret"),
        (0xED, b"Photoshop 3.0\0secret"),
        (0xE2, b"MPF\0secret"),
        (0xE0, b"JFXX\0\x10secret"),
        (0xFE, b"secret"),
    )
    assert strip_metadata(marked + b"secret") == data
    assert strip_metadata(marked + data) == data  # a second JPEG


def test_thumbnail_in_the_jfif_segment_is_removed() -> None:
    data = encoded(noise())
    header = b"JFIF\0\x01\x01\0\0\x01\0\x01"
    assert data[6:18] == header
    with_thumbnail = data[:2] + b"\xff\xe0\x00\x13" + header + b"\x01\x01abc" + data[20:]
    assert strip_metadata(with_thumbnail) == data


def test_segments_that_define_colours_are_kept() -> None:
    adobe = b"Adobe\0\x64\0\0\0\0\x00"  # transform 0: the channels are RGB, not YCbCr
    profile = b"ICC_PROFILE\0\x01\x01profile"
    data = encoded(noise())
    bare = data[:2] + data[20:]  # a JFIF segment would take precedence over the Adobe one
    marked = with_segments(bare, (0xEE, adobe), (0xE2, profile))
    assert strip_metadata(marked) == marked
    assert not np.array_equal(pixels(marked), pixels(bare))


def test_fill_bytes_before_a_marker_are_skipped() -> None:
    data = encoded(noise())
    assert strip_metadata(data[:2] + b"\xff\xff" + data[2:]) == data


def test_missing_end_marker_is_added() -> None:
    data = encoded(noise())
    assert strip_metadata(data[:-2]) == data


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG", b"\xff\xd8\xff\xe0\xff", b"\xff\xd8\xff\xe0\0\x01", b"\xff\xd8\xff\xe0\0\x02no"]
)
def test_bytes_that_are_not_segments_are_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="begin as a JPEG|declares|no marker"):
        strip_metadata(data)


@pytest.mark.parametrize("options", ENCODINGS.values(), ids=ENCODINGS)
def test_damaged_jpeg_that_still_decodes_keeps_its_pixels(options: dict[str, Any]) -> None:
    data, rng, num_compared = encoded(noise(), **options), random.Random(7), 0
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.sample(range(len(data)), 3):
            damaged[position] = rng.choice((0xFF, 0xD9, 0xE1, rng.randrange(256)))
        try:
            before = decode_image(bytes(damaged))
            stripped = strip_metadata(bytes(damaged))
        except (UnreadableImage, ValueError):
            continue
        if Image.open(io.BytesIO(damaged)).getexif():
            continue
        assert np.array_equal(np.asarray(before), np.asarray(decode_image(stripped)))
        num_compared += 1
    assert num_compared > 30
