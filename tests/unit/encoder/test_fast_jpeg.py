"""The fast decoder gives Pillow's pixels, or leaves the photo to Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raysys.encoder import fast_jpeg
from raysys.encoder.preprocess import decode_image

simplejpeg = pytest.importorskip("simplejpeg", reason="the extra `fast` is not installed")


def coded(size: tuple[int, int], mode: str = "RGB", **how: Any) -> bytes:
    """A JPEG of smooth colours with noise over them."""
    width, height = size
    rng = np.random.default_rng(3)
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    pixels = (ramp * [1.0, 0.7, 0.4] + rng.integers(0, 15, (height, width, 3))).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "JPEG", **how)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 47), (255, 254), (640, 481)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_are_those_of_pillow(size: tuple[int, int], subsampling: int, progressive: bool) -> None:
    data = coded(size, quality=80, subsampling=subsampling, progressive=progressive)
    found = fast_jpeg.decode_jpeg(data, opened(data))
    assert found is not None
    np.testing.assert_array_equal(np.asarray(found), np.asarray(opened(data).convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_what_is_not_rgb_is_left_to_pillow(mode: str) -> None:
    data = coded((16, 16), mode)
    assert fast_jpeg.decode_jpeg(data, opened(data)) is None


def test_damaged_photo_is_left_to_pillow() -> None:
    data = coded((64, 64))
    damaged = data[: len(data) * 2 // 3]
    assert fast_jpeg.decode_jpeg(damaged, opened(damaged)) is None


def test_it_is_what_decodes_a_whole_photo_and_not_a_part_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "raysys.encoder.preprocess.decode_jpeg", lambda data, picture: asked.append(picture.size)
    )
    data = coded((64, 48))
    assert decode_image(data).size == (64, 48)
    assert decode_image(data, at_least_px=12).size == (16, 12)
    assert asked == [(64, 48)]
