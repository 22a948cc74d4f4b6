"""Each of the 22 damaged or unusual files of the shared catalogue is handled as its README requires.

The folder is `../shared/catalog/hard` beside the repository, or the value of RAYSYS_HARD_PHOTOS;
`test_photos.py` generates the most important cases itself.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import raysys
from raysys.config.schema import PackConfig
from raysys.encoder.preprocess import decode_image
from raysys.errors import UnreadableImage
from raysys.pack.photos import Photo, read_photo

DEFAULT_FOLDER = Path(raysys.__file__).parents[2] / "shared" / "catalog" / "hard"
HARD = Path(os.environ.get("RAYSYS_HARD_PHOTOS", DEFAULT_FOLDER))
PACK = PackConfig()

pytestmark = pytest.mark.skipif(
    not HARD.is_dir(), reason=f"no hard photos at {HARD}; set RAYSYS_HARD_PHOTOS to their folder"
)

REFUSED = {
    "01_truncated.jpg": "damaged",
    "02_zero_byte.jpg": "not_an_image",
    "08_text_named.jpg": "not_an_image",
    "11_bomb_20000x20000.png": "too_many_pixels",
    "12_bomb_warn_10000x10000.png": "too_many_pixels",
    "13_header_only_65000x65000.png": "too_many_pixels",
}
# Width, height, and whether the file keeps its bytes.
ACCEPTED = {
    "03_alpha.png": (192, 256, False),
    "04_cmyk.jpg": (192, 256, False),
    "05_16bit_grey.png": (192, 256, False),
    "06_animated.gif": (192, 256, False),
    "07_exif_rotated.jpg": (200, 300, False),
    "09_1x1.png": (1, 1, False),
    "10_wide_4000x8.jpg": (4000, 8, True),
    "14_photo.webp": (192, 256, False),
    "15_png_named.jpg": (96, 96, False),
    "16_grey.jpg": (192, 256, True),
    "17_palette_trns.png": (192, 256, False),
    "18_corrupt_scan.jpg": (192, 256, True),
    "19_trailing_garbage.jpg": (192, 256, False),
    "20_日本語 ファイル名.jpg": (192, 256, True),
    "21_uniform_white.jpg": (256, 256, True),
    "22_progressive.jpg": (192, 256, True),
}


def read(name: str) -> Photo:
    return read_photo(str(HARD / name), PACK)


def pixels(photo: Photo) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(photo.data)).convert("RGB"), dtype=np.int16)


def colour_at(photo: Photo, x: int, y: int) -> list[bool]:
    """Whether red, green and blue are above half intensity at a pixel."""
    return [bool(value > 127) for value in pixels(photo)[y, x]]


def distance(name: str) -> float:
    """Mean absolute difference (of 255) from the intact photo that the file was made of."""
    return float(np.abs(pixels(read(name)) - pixels(read("20_日本語 ファイル名.jpg"))).mean())


def test_every_file_has_an_expected_result() -> None:
    names = {path.name for path in HARD.iterdir() if path.suffix != ".md"}
    assert names == REFUSED.keys() | ACCEPTED.keys()
    assert len(names) == 22


@pytest.mark.parametrize("name", REFUSED)
def test_unusable_file_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(UnreadableImage) as caught:
        read(name)
    assert caught.value.reason == REFUSED[name]


@pytest.mark.parametrize("name", ACCEPTED)
def test_unusual_file_becomes_a_jpeg_of_its_decoded_pixels(name: str) -> None:
    photo = read(name)
    assert (photo.width, photo.height, photo.is_original) == ACCEPTED[name]
    stored = Image.open(io.BytesIO(photo.data))
    assert (stored.format, stored.size) == ("JPEG", (photo.width, photo.height))
    assert stored.mode == ("L" if name == "16_grey.jpg" else "RGB")
    assert not stored.getexif()
    decoded = np.asarray(decode_image((HARD / name).read_bytes()), dtype=np.int16)
    difference = np.abs(pixels(photo) - decoded).mean()
    assert difference == 0 if photo.is_original else difference < 4  # of 255: re-encoded at quality 95


@pytest.mark.parametrize("name", ["03_alpha.png", "17_palette_trns.png"])
def test_transparent_pixels_are_white(name: str) -> None:
    data = (HARD / name).read_bytes()
    is_transparent = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3] == 0
    assert is_transparent.any()
    assert (np.asarray(decode_image(data))[is_transparent] == 255).all()
    assert pixels(read("03_alpha.png"))[:4, :4].min() > 250  # the corner lies outside the ellipse


def test_sixteen_bit_photo_keeps_its_brightness() -> None:
    assert abs(int(pixels(read("05_16bit_grey.png")).max()) - 82) <= 4  # 21074 / 257 = 82


def test_cmyk_is_not_inverted() -> None:
    assert distance("04_cmyk.jpg") < 12


def test_animation_becomes_its_first_frame() -> None:
    assert colour_at(read("06_animated.gif"), 10, 10) == [True, False, False]


def test_rotated_photo_is_red_above_blue_with_yellow_at_the_top_right() -> None:
    photo = read("07_exif_rotated.jpg")
    colours = [colour_at(photo, *at) for at in ((20, 100), (100, 280), (190, 10))]
    assert colours == [[True, False, False], [False, False, True], [True, True, False]]


def test_bytes_behind_the_end_marker_are_dropped() -> None:
    assert distance("19_trailing_garbage.jpg") == 0
    assert len(read("19_trailing_garbage.jpg").data) <= 11109 - 1600


def test_other_encodings_of_a_photo_have_near_phashes() -> None:
    intact = read("20_日本語 ファイル名.jpg").phash
    assert intact is not None
    for name in ("14_photo.webp", "19_trailing_garbage.jpg", "22_progressive.jpg"):
        phash = read(name).phash
        assert phash is not None
        assert (int.from_bytes(intact) ^ int.from_bytes(phash)).bit_count() <= 4
    assert read("21_uniform_white.jpg").phash is None
    assert read("09_1x1.png").phash is None
