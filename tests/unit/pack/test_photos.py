"""A photo of any format becomes an upright JPEG without metadata, or is refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from raysys.config.schema import PackConfig
from raysys.encoder.preprocess import decode_image
from raysys.errors import MissingError, UnreadableImage
from raysys.pack.photos import Photo, phash, read_photo

PACK = PackConfig()


def sample_photo(width: int = 120, height: int = 90) -> Image.Image:
    """Red on the left, blue on the right, a yellow ellipse at the top left."""
    photo = Image.new("RGB", (width, height), "red")
    draw = ImageDraw.Draw(photo)
    draw.rectangle((width // 2, 0, width, height), fill="blue")
    draw.ellipse((0, 0, width // 4, height // 4), fill="yellow")
    return photo


def encoded(photo: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    data = io.BytesIO()
    photo.save(data, kind, **options)
    return data.getvalue()


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "secret"
    return exif


def pixel(photo: Photo, x: int, y: int) -> tuple[int, ...]:
    colour = Image.open(io.BytesIO(photo.data)).convert("RGB").getpixel((x, y))
    assert isinstance(colour, tuple)
    return tuple(int(round(value / 85) * 85) for value in colour)  # to a third: JPEG is not exact


def refusal(image: str | bytes, section: PackConfig = PACK) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_photo(image, section)
    return caught.value.reason


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_upright_jpeg_keeps_its_coded_pixels_and_loses_its_metadata(mode: str, progressive: bool) -> None:
    source = sample_photo().convert(mode)
    options: dict[str, Any] = {"quality": 40, "progressive": progressive}
    plain = encoded(source, **options)
    with_metadata = encoded(source, **options, exif=exif_with(1), comment="secret") + b"secret"
    photo = read_photo(with_metadata, PACK)
    assert photo == Photo(plain, 120, 90, phash(decoded(plain)), is_original=False)


def decoded(data: bytes) -> Image.Image:
    return decode_image(data)


def test_rotated_photo_is_stored_upright() -> None:
    # Orientation 6: rotate by 90 degrees clockwise for display.
    photo = read_photo(encoded(sample_photo(), exif=exif_with(6)), PACK)
    assert (photo.width, photo.height, photo.is_original) == (90, 120, False)
    # The left side moves to the top, and the top left corner to the top right.
    assert [pixel(photo, *at) for at in ((20, 20), (45, 110), (78, 15))] == [
        (255, 0, 0),
        (0, 0, 255),
        (255, 255, 0),
    ]
    assert b"secret" not in photo.data
    assert b"Exif" not in photo.data


def test_transparent_pixels_are_white() -> None:
    layer = sample_photo().convert("RGBA")
    layer.paste((0, 255, 0, 0), (60, 0, 120, 90))  # transparent green
    palette = sample_photo().quantize(4)
    red_index = palette.getpixel((30, 60))
    for data in (encoded(layer, "PNG"), encoded(layer, "WEBP", lossless=True)):
        photo = read_photo(data, PACK)
        assert (pixel(photo, 30, 60), pixel(photo, 90, 60)) == ((255, 0, 0), (255, 255, 255))
    photo = read_photo(encoded(palette, "PNG", transparency=red_index), PACK)
    assert (pixel(photo, 30, 60), pixel(photo, 90, 60)) == ((255, 255, 255), (0, 0, 255))


def test_other_depths_and_colours_become_rgb() -> None:
    deep = Image.fromarray(np.full((40, 40), 21845, dtype=np.uint16))  # 21845 / 257 = 85
    assert pixel(read_photo(encoded(deep, "PNG"), PACK), 20, 20) == (85, 85, 85)
    cmyk = Image.new("CMYK", (40, 40), (0, 255, 255, 0))  # no cyan: red
    photo = read_photo(encoded(cmyk), PACK)
    assert (pixel(photo, 20, 20), photo.is_original) == ((255, 0, 0), False)
    assert Image.open(io.BytesIO(photo.data)).mode == "RGB"


def test_animation_becomes_its_first_frame() -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        photo = read_photo(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), PACK)
        assert pixel(photo, 20, 20) == (255, 0, 0)


def test_first_photo_of_a_multi_photo_jpeg_is_stored() -> None:
    first, second = sample_photo(), sample_photo().rotate(180)
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    photo = read_photo(data, PACK)
    assert not photo.is_original
    assert len(photo.data) < 0.6 * len(data)
    assert np.array_equal(np.asarray(decoded(photo.data)), np.asarray(decoded(data)))


def test_rgb_profile_is_kept_and_others_are_dropped() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for data in (
        encoded(sample_photo(), icc_profile=profile),
        encoded(sample_photo(), "PNG", icc_profile=profile),
    ):
        photo = read_photo(data, PACK)
        assert Image.open(io.BytesIO(photo.data)).info["icc_profile"] == profile
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    photo = read_photo(encoded(sample_photo(), "PNG", icc_profile=lab), PACK)
    assert "icc_profile" not in Image.open(io.BytesIO(photo.data)).info


@pytest.mark.parametrize("size", [(1, 1), (4000, 8), (8, 4000)])
def test_extreme_aspect_ratios_are_accepted(size: tuple[int, int]) -> None:
    photo = read_photo(encoded(Image.new("RGB", size, "red"), "PNG"), PACK)
    assert (photo.width, photo.height) == size


def test_large_photo_is_resized_only_if_max_side_px_is_set() -> None:
    data = encoded(sample_photo(1200, 301))
    assert read_photo(data, PackConfig(max_side_px=1200)).is_original
    photo = read_photo(data, PackConfig(max_side_px=300))
    assert (photo.width, photo.height, photo.is_original) == (300, 75, False)  # 301 / 4 = 75.25
    assert (pixel(photo, 100, 60), pixel(photo, 200, 60)) == ((255, 0, 0), (0, 0, 255))
    thin = read_photo(encoded(Image.new("RGB", (1000, 1))), PackConfig(max_side_px=10))
    assert (thin.width, thin.height) == (10, 1)


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    signed = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + signed + struct.pack(">I", 9999) + b"IDAT"


@pytest.mark.parametrize("side_px", [8001, 10_000, 20_000, 65_000])  # 64 million pixels are 8000 x 8000
def test_decompression_bomb_is_refused_by_its_header(side_px: int) -> None:
    assert refusal(png_header(side_px, side_px)) == "too_many_pixels"


def test_side_above_the_jpeg_limit_is_refused() -> None:
    data = encoded(Image.new("1", (70_000, 2)), "PNG")
    assert refusal(data) == "too_many_pixels"
    assert read_photo(data, PackConfig(max_side_px=1000)).width == 1000


@pytest.mark.parametrize(
    "data", [b"", b"<html>not found</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_bytes_that_are_not_a_photo_are_refused(data: bytes) -> None:
    assert refusal(data) == "not_an_image"


def test_truncated_photo_is_damaged() -> None:
    noise = Image.fromarray(np.random.default_rng(7).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert refusal(encoded(noise)[:-1500]) == "damaged"


def test_format_is_read_from_the_content_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "日本語 ファイル名.jpg"
    path.write_bytes(encoded(sample_photo(), "PNG"))
    assert pixel(read_photo(str(path), PACK), 90, 60) == (0, 0, 255)
    with pytest.raises(MissingError):
        read_photo(f"{tmp_path}/gone.jpg", PACK)


def test_too_many_bytes_are_refused_before_decoding() -> None:
    assert refusal(b"x" * 1001, PackConfig(max_photo_megabytes=0.001)) == "too_many_bytes"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_damaged_bytes_are_stored_or_refused_without_another_error(kind: str) -> None:
    rng = np.random.default_rng(7)
    data = encoded(sample_photo(60, 40), kind, **({"exif": exif_with(6)} if kind != "BMP" else {}))
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, min(len(data), 400), 4):
            damaged[position] = rng.integers(256)
        try:
            photo = read_photo(bytes(damaged), PackConfig(max_megapixels=0.1))
        except UnreadableImage:
            continue
        assert decoded(photo.data).size == (photo.width, photo.height)


def test_phash_is_near_for_a_resized_photo_and_far_for_a_mirrored_one() -> None:
    original = phash(sample_photo(400, 300))
    resized = phash(decoded(encoded(sample_photo(160, 120), quality=30)))
    mirrored = phash(sample_photo(400, 300).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert original is not None
    assert resized is not None
    assert mirrored is not None
    assert bits_apart(original, resized) <= 4
    assert bits_apart(original, mirrored) >= 20
    assert len(original) == 16


def test_same_shape_in_another_colour_has_another_phash() -> None:
    red, blue = (Image.new("RGB", (100, 100), "white") for _ in range(2))
    red.paste("red", (20, 30, 70, 80))
    blue.paste("blue", (20, 30, 70, 80))
    first, second = phash(red), phash(blue)
    assert first is not None
    assert second is not None
    assert bits_apart(first, second) > 4


def bits_apart(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def test_uniform_photo_has_no_phash() -> None:
    surface = 240 + np.random.default_rng(7).normal(0, 5, (200, 200, 3))  # a white wall, and camera noise
    assert phash(Image.fromarray(surface.clip(0, 255).astype(np.uint8))) is None
    assert phash(Image.new("RGB", (1, 1))) is None
