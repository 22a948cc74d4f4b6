"""The fast decoder returns the same pixels as Pillow, or None."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raysys.encoder import fast_jpeg
from raysys.encoder.preprocess import decode_image


def jpeg(size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    """A JPEG of a colour gradient with noise."""
    width, height = size
    rng = np.random.default_rng(3)
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    pixels = (ramp * [1.0, 0.7, 0.4] + rng.integers(0, 15, (height, width, 3))).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def open_image(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 47), (255, 254), (640, 481)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_equal_pillows(size: tuple[int, int], subsampling: int, progressive: bool) -> None:
    data = jpeg(size, quality=80, subsampling=subsampling, progressive=progressive)
    image = fast_jpeg.decode_jpeg(data, open_image(data), size)
    assert image is not None
    np.testing.assert_array_equal(np.asarray(image), np.asarray(open_image(data).convert("RGB")))


@pytest.mark.parametrize("size", [(8, 8), (9, 65), (100, 60), (255, 254), (641, 480), (1024, 1023)])
@pytest.mark.parametrize("at_least_px", [1, 20, 33, 120])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_reduced_pixels_equal_pillows(
    size: tuple[int, int], at_least_px: int, subsampling: int, progressive: bool
) -> None:
    data = jpeg(size, quality=80, subsampling=subsampling, progressive=progressive)
    reduced, by_pillow = open_image(data), open_image(data)
    for opened in (reduced, by_pillow):
        opened.draft(None, (at_least_px, at_least_px))
    image = fast_jpeg.decode_jpeg(data, reduced, size)
    assert image is not None
    np.testing.assert_array_equal(np.asarray(image), np.asarray(by_pillow.convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7)])
def test_small_jpeg_is_not_decoded_at_a_reduced_size(size: tuple[int, int]) -> None:
    data = jpeg(size)
    reduced = open_image(data)
    reduced.draft(None, (1, 1))
    image = fast_jpeg.decode_jpeg(data, reduced, size)
    assert image is None or reduced.size == size


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpeg_of_another_mode_is_not_decoded(mode: str) -> None:
    data = jpeg((16, 16), mode)
    assert fast_jpeg.decode_jpeg(data, open_image(data), (16, 16)) is None


def test_damaged_jpeg_is_not_decoded() -> None:
    data = jpeg((64, 64))
    damaged = data[: len(data) * 2 // 3]
    assert fast_jpeg.decode_jpeg(damaged, open_image(damaged), (64, 64)) is None


def test_fast_decoder_is_used_at_full_and_at_reduced_size(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded_sizes: list[tuple[int, int]] = []

    def decode(data: bytes, image: Image.Image, full_size: tuple[int, int]) -> Image.Image | None:
        decoded_sizes.append(image.size)
        return fast_jpeg.decode_jpeg(data, image, full_size)

    monkeypatch.setattr("raysys.encoder.preprocess.decode_jpeg", decode)
    data = jpeg((64, 48))
    assert decode_image(data).size == (64, 48)
    assert decode_image(data, at_least_px=12).size == (16, 12)
    assert decoded_sizes == [(64, 48), (16, 12)]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_damage_of_a_scan_is_what_libjpeg_warns_about(mode: str) -> None:
    data = jpeg((64, 64), mode)
    damaged = data[:-102] + data[-2:]  # without 100 bytes of the scan
    assert fast_jpeg.scan_damage(data, open_image(data)) is None
    damage = fast_jpeg.scan_damage(damaged, open_image(damaged))
    assert damage == "Corrupt JPEG data: premature end of data segment"


def test_other_formats_have_no_scan() -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    assert fast_jpeg.scan_damage(out.getvalue(), open_image(out.getvalue())) is None
