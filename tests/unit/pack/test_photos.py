"""A photo of any kind ends as an upright JPEG without metadata, or is refused with its reason."""

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
from raysys.pack.photos import Photo, perceptual_hash, read_photo

PACK = PackConfig()


def drawing(width: int = 120, height: int = 90) -> Image.Image:
    """Something with shapes: red to the left, blue to the right, yellow at the top left."""
    picture = Image.new("RGB", (width, height), "red")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((width // 2, 0, width, height), fill="blue")
    draw.ellipse((0, 0, width // 4, height // 4), fill="yellow")
    return picture


def encoded(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


def turned(orientation: int) -> Image.Exif:
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
def test_upright_jpeg_keeps_its_pixels_and_loses_its_metadata(mode: str, progressive: bool) -> None:
    picture = drawing().convert(mode)
    plain = encoded(picture, quality=40, progressive=progressive)
    marked = (
        encoded(picture, quality=40, progressive=progressive, exif=turned(1), comment="secret") + b"secret"
    )
    photo = read_photo(marked, PACK)
    assert photo == Photo(plain, 120, 90, perceptual_hash(picture_of(plain)), is_original=False)


def picture_of(data: bytes) -> Image.Image:
    return decode_image(data)


def test_turned_photo_stands_upright() -> None:
    photo = read_photo(encoded(drawing(), exif=turned(6)), PACK)  # a quarter clockwise to view
    assert (photo.width, photo.height, photo.is_original) == (90, 120, False)
    # What was left comes to the top, and the top left corner to the top right.
    assert [pixel(photo, *at) for at in ((20, 20), (45, 110), (78, 15))] == [
        (255, 0, 0),
        (0, 0, 255),
        (255, 255, 0),
    ]
    assert b"secret" not in photo.data
    assert b"Exif" not in photo.data


def test_transparent_pixels_are_white() -> None:
    layer = drawing().convert("RGBA")
    layer.paste((0, 255, 0, 0), (60, 0, 120, 90))  # green is hidden there
    palette = drawing().quantize(4)
    whole = palette.getpixel((30, 60))
    for data in (encoded(layer, "PNG"), encoded(layer, "WEBP", lossless=True)):
        photo = read_photo(data, PACK)
        assert (pixel(photo, 30, 60), pixel(photo, 90, 60)) == ((255, 0, 0), (255, 255, 255))
    photo = read_photo(encoded(palette, "PNG", transparency=whole), PACK)
    assert (pixel(photo, 30, 60), pixel(photo, 90, 60)) == ((255, 255, 255), (0, 0, 255))


def test_other_depths_and_colours_become_rgb() -> None:
    deep = Image.fromarray(np.full((40, 40), 21845, dtype=np.uint16))  # 21845 / 257 = 85
    assert pixel(read_photo(encoded(deep, "PNG"), PACK), 20, 20) == (85, 85, 85)
    cmyk = Image.new("CMYK", (40, 40), (0, 255, 255, 0))  # no cyan: red
    photo = read_photo(encoded(cmyk), PACK)
    assert (pixel(photo, 20, 20), photo.is_original) == ((255, 0, 0), False)
    assert Image.open(io.BytesIO(photo.data)).mode == "RGB"


def test_first_frame_stands_for_an_animation() -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        photo = read_photo(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), PACK)
        assert pixel(photo, 20, 20) == (255, 0, 0)


def test_of_many_pictures_in_a_jpeg_the_first_is_kept() -> None:
    first, second = drawing(), drawing().rotate(180)
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    photo = read_photo(data, PACK)
    assert not photo.is_original
    assert len(photo.data) < 0.6 * len(data)
    assert np.array_equal(np.asarray(picture_of(photo.data)), np.asarray(picture_of(data)))


def test_colour_profile_stays_where_it_still_holds() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for data in (encoded(drawing(), icc_profile=profile), encoded(drawing(), "PNG", icc_profile=profile)):
        photo = read_photo(data, PACK)
        assert Image.open(io.BytesIO(photo.data)).info["icc_profile"] == profile
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    photo = read_photo(encoded(drawing(), "PNG", icc_profile=lab), PACK)
    assert "icc_profile" not in Image.open(io.BytesIO(photo.data)).info


@pytest.mark.parametrize("size", [(1, 1), (4000, 8), (8, 4000)])
def test_odd_sizes_are_photos(size: tuple[int, int]) -> None:
    photo = read_photo(encoded(Image.new("RGB", size, "red"), "PNG"), PACK)
    assert (photo.width, photo.height) == size


def test_large_photo_is_made_smaller_only_on_request() -> None:
    data = encoded(drawing(1200, 301))
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
def test_bomb_is_refused_by_its_header(side_px: int) -> None:
    assert refusal(png_header(side_px, side_px)) == "too_many_pixels"


def test_side_that_no_jpeg_can_have_is_refused() -> None:
    data = encoded(Image.new("1", (70_000, 2)), "PNG")
    assert refusal(data) == "too_many_pixels"
    assert read_photo(data, PackConfig(max_side_px=1000)).width == 1000


@pytest.mark.parametrize(
    "data", [b"", b"<html>not found</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_photo_is_refused(data: bytes) -> None:
    assert refusal(data) == "not_an_image"


def test_cut_photo_is_damaged() -> None:
    noise = Image.fromarray(np.random.default_rng(7).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert refusal(encoded(noise)[:-1500]) == "damaged"


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "日本語 ファイル名.jpg"
    path.write_bytes(encoded(drawing(), "PNG"))
    assert pixel(read_photo(str(path), PACK), 90, 60) == (0, 0, 255)
    with pytest.raises(MissingError):
        read_photo(f"{tmp_path}/gone.jpg", PACK)


def test_too_many_bytes_are_refused_before_they_are_looked_at() -> None:
    assert refusal(b"x" * 1001, PackConfig(max_photo_megabytes=0.001)) == "too_many_bytes"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_damaged_bytes_are_a_photo_or_refused_and_nothing_else(kind: str) -> None:
    draw = np.random.default_rng(7)
    data = encoded(drawing(60, 40), kind, **({"exif": turned(6)} if kind != "BMP" else {}))
    for _ in range(150):
        damaged = bytearray(data)
        for place in draw.integers(0, min(len(data), 400), 4):
            damaged[place] = draw.integers(256)
        try:
            photo = read_photo(bytes(damaged), PackConfig(max_megapixels=0.1))
        except UnreadableImage:
            continue
        assert picture_of(photo.data).size == (photo.width, photo.height)


def test_hash_is_near_for_the_same_picture_and_far_for_another() -> None:
    ours = perceptual_hash(drawing(400, 300))
    again = perceptual_hash(picture_of(encoded(drawing(160, 120), quality=30)))
    other = perceptual_hash(drawing(400, 300).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert ours is not None
    assert again is not None
    assert other is not None
    assert bits_apart(ours, again) <= 4
    assert bits_apart(ours, other) >= 20
    assert len(ours) == 16


def test_same_cut_in_another_colour_has_another_hash() -> None:
    red, blue = (Image.new("RGB", (100, 100), "white") for _ in range(2))
    red.paste("red", (20, 30, 70, 80))
    blue.paste("blue", (20, 30, 70, 80))
    first, second = perceptual_hash(red), perceptual_hash(blue)
    assert first is not None
    assert second is not None
    assert bits_apart(first, second) > 4


def bits_apart(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def test_flat_picture_has_no_hash() -> None:
    surface = 240 + np.random.default_rng(7).normal(0, 5, (200, 200, 3))  # a white wall, and camera noise
    assert perceptual_hash(Image.fromarray(surface.clip(0, 255).astype(np.uint8))) is None
    assert perceptual_hash(Image.new("RGB", (1, 1))) is None
