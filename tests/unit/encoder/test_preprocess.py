"""Photo preprocessing: small photos with known pixels, and comparison with the checkpoint's own processor."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image, features

from raysys.config.schema import ScratchConfig
from raysys.encoder.preprocess import ImagePreprocessing, decode_image, photo_pixels, to_pixels
from raysys.encoder.scratch import build_scratch
from raysys.encoder.siglip import SiglipEncoder, normalise
from raysys.encoder.text import TextPreprocessing
from raysys.errors import UnreadableImage
from raysys.synth import generate_items, render_item

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, format_name: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


def pixels_of(data: bytes) -> list[list[tuple[int, ...]]]:
    image = decode_image(data)
    assert image.mode == "RGB"
    return [[tuple(pixel) for pixel in row] for row in np.asarray(image).tolist()]


def error_of(data: bytes, **limits: int) -> UnreadableImage:
    with pytest.raises(UnreadableImage) as caught:
        decode_image(data, **limits)
    return caught.value


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    # Orientation 6: rotate by 90 degrees clockwise; the left side becomes the top.
    assert pixels_of(encode(image, exif=exif_with(6))) == [[RED], [BLUE]]
    assert pixels_of(encode(image, exif=exif_with(3))) == [[BLUE, RED]]


def test_transparent_pixels_become_white() -> None:
    image = Image.new("RGBA", (3, 1), (*RED, 255))
    image.putpixel((1, 0), (*RED, 0))
    image.putpixel((2, 0), (*RED, 51))  # one fifth red, four fifths white: 255 * 4 / 5 = 204
    assert pixels_of(encode(image)) == [[RED, WHITE, (255, 204, 204)]]


def test_grey_with_alpha_is_composed_on_white() -> None:
    image = Image.new("LA", (2, 1), (100, 255))
    image.putpixel((1, 0), (100, 0))
    assert pixels_of(encode(image)) == [[(100, 100, 100), WHITE]]


def test_transparent_palette_colour_becomes_white() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    assert pixels_of(encode(image)) == [[RED, BLUE]]
    assert pixels_of(encode(image, transparency=1)) == [[RED, WHITE]]


def test_16_bit_values_are_scaled_to_8_bits() -> None:
    # 65535 / 257 = 255, 21074 / 257 = 82
    image = Image.fromarray(np.array([[0, 21074, 65535]], dtype=np.uint16))
    assert pixels_of(encode(image)) == [[(0, 0, 0), (82, 82, 82), WHITE]]


def test_dark_16_bit_photo_stays_dark() -> None:
    # 200 / 257 rounds to 1; read as 8 bits, 200 would be a light grey.
    image = Image.fromarray(np.array([[0, 200]], dtype=np.uint16))
    assert pixels_of(encode(image)) == [[(0, 0, 0), (1, 1, 1)]]


def test_cmyk_is_converted_to_rgb() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan: red
    red, green, blue = pixels_of(encode(image, "JPEG", quality=100))[4][4]
    assert red > 250
    assert max(green, blue) < 5


def test_grey_is_expanded_to_three_channels() -> None:
    assert pixels_of(encode(Image.new("L", (1, 1), 100))) == [[(100, 100, 100)]]
    assert pixels_of(encode(Image.new("1", (1, 1), 1))) == [[WHITE]]


def test_first_frame_of_an_animation_is_used() -> None:
    frames = [Image.new("RGB", (1, 1), colour) for colour in (RED, BLUE)]
    assert pixels_of(encode(frames[0], "GIF", save_all=True, append_images=frames[1:])) == [[RED]]


def test_too_many_pixels_are_refused_before_decoding() -> None:
    header_only = encode(noise(30, 31))[:60]
    error = error_of(header_only, max_pixels=929)
    assert error.reason == "too_many_pixels"
    assert str(error) == "photo has 30 x 31 pixels, at most 929 are accepted; make it smaller"
    assert error_of(header_only, max_pixels=930).reason == "damaged"


def test_header_with_billions_of_pixels_is_refused() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 65000, 65000, 8, 6, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    error = error_of(data + struct.pack(">I", 9999) + b"IDAT")
    assert error.reason == "too_many_pixels"
    assert str(error).startswith("photo has too many pixels (")


def test_truncated_jpeg_is_damaged() -> None:
    data = encode(noise(64, 64), "JPEG")
    error = error_of(data[: len(data) // 2])
    assert error.reason == "damaged"
    assert str(error).startswith("photo cannot be decoded (image file is truncated")
    assert str(error).endswith("; give an undamaged file")


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"\xff\xd8\xff"])
def test_other_bytes_are_not_a_photo(data: bytes) -> None:
    error = error_of(data)
    assert error.reason == "not_an_image"
    assert str(error) == f"not a photo ({len(data)} bytes); give JPEG, PNG or WebP"


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_damaged_avif_is_damaged() -> None:
    data = encode(Image.new("RGB", (64, 64), RED), "AVIF")
    payload = data.index(b"mdat") + 4
    assert error_of(data[:payload] + b"\xff" * (len(data) - payload)).reason == "damaged"


def test_photo_with_damaged_exif_is_decoded() -> None:
    data = encode(Image.new("RGB", (8, 4), RED), "JPEG", exif=exif_with(6))
    tag_count = data.index(b"Exif\0\0MM\0*\0\0\0\x08") + 14
    damaged = (
        data[:tag_count] + b"\x00\xff" + data[tag_count + 2 :]
    )  # the header announces 255 tags, but there is one
    assert sorted(decode_image(damaged).size) == [4, 8]


@pytest.mark.parametrize("size", [(50, 37), (32, 32), (7, 90)])
def test_pixels_equal_those_of_the_checkpoints_processor(size: tuple[int, int]) -> None:
    image, preprocessing = noise(*size), ImagePreprocessing(size_px=32)
    processor = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    expected = processor(images=image, return_tensors="np")["pixel_values"]
    pixels = to_pixels(image, preprocessing)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    ours = normalise(torch.from_numpy(pixels.copy())[None], preprocessing).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_mean_std_and_resampling_filter_are_used() -> None:
    image = noise(50, 37)
    preprocessing = ImagePreprocessing(
        size_px=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), resample=int(Image.Resampling.BILINEAR)
    )
    processor = transformers.SiglipImageProcessorPil(
        size={"height": 16, "width": 16}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4], resample=2
    )
    expected = processor(images=image, return_tensors="np")["pixel_values"]
    ours = normalise(torch.from_numpy(to_pixels(image, preprocessing).copy())[None], preprocessing).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "at_least_px", "expected"),
    [
        ((800, 400), 200, (400, 200)),  # 1/2: both sides keep 200 pixels
        ((800, 400), 201, (800, 400)),
        ((800, 400), 50, (100, 50)),  # 1/8 is the smallest scale
        ((803, 401), 100, (201, 101)),
    ],
)
def test_jpeg_is_decoded_at_the_smallest_sufficient_scale(
    size: tuple[int, int], at_least_px: int, expected: tuple[int, int]
) -> None:
    data = encode(noise(*size), "JPEG")
    assert decode_image(data, at_least_px=at_least_px).size == expected
    assert decode_image(data).size == size


def test_scaled_decoding_applies_exif_orientation() -> None:
    data = encode(noise(160, 80), "JPEG", exif=exif_with(6))
    assert decode_image(data, at_least_px=40).size == (40, 80)


def test_other_formats_are_decoded_at_full_size() -> None:
    assert decode_image(encode(noise(160, 80)), at_least_px=8).size == (160, 80)


@pytest.mark.parametrize("size_px", [24, 48])
def test_scaled_decoding_changes_vectors_by_less_than_the_parity_limit(tmp_path: Path, size_px: int) -> None:
    """Cosine distance between scaled and full decoding is below 1e-3, the parity limit."""
    preprocessing = ImagePreprocessing(size_px=size_px)
    build_scratch(
        tmp_path, ["a red cup", "a blue hat"], ScratchConfig(image_size_px=size_px, vocab_size=40), seed=7
    )
    encoder = SiglipEncoder(tmp_path, space_id="", text=TextPreprocessing(max_length=8))
    photos = [render_item(item, 512) for item in generate_items(6, seed=3)]
    assert decode_image(photos[0], at_least_px=3 * size_px).size[0] < 512
    scaled = encoder.embed_pixels(np.stack([photo_pixels(photo, preprocessing) for photo in photos]))
    full = encoder.embed_pixels(np.stack([to_pixels(decode_image(photo), preprocessing) for photo in photos]))
    assert float((1.0 - (scaled * full).sum(axis=1)).max()) < 1e-3
