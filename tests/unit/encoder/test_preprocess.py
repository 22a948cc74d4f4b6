"""The one preprocessing: hand-made photos whose right pixels are known, and the checkpoint's own processor."""

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

from raysys.config.schema import TinyConfig
from raysys.encoder.preprocess import ImagePreprocessing, decode_image, photo_pixels, to_pixels
from raysys.encoder.siglip import SiglipEncoder, normalise
from raysys.encoder.text import TextPreprocessing, normalise_title, to_tokens
from raysys.encoder.tiny import build_tiny
from raysys.encoder.tokenizer import load_tokenizer
from raysys.errors import UnreadableImage
from raysys.synth import generate_items, render_item

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def pixels_of(data: bytes) -> list[list[tuple[int, ...]]]:
    picture = decode_image(data)
    assert picture.mode == "RGB"
    return [[tuple(pixel) for pixel in row] for row in np.asarray(picture).tolist()]


def refusal_of(data: bytes, **limits: int) -> UnreadableImage:
    with pytest.raises(UnreadableImage) as caught:
        decode_image(data, **limits)
    return caught.value


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_photo_stands_upright() -> None:
    picture = Image.new("RGB", (2, 1), RED)
    picture.putpixel((1, 0), BLUE)
    # Orientation 6: turn a quarter clockwise to view; what was left comes to the top.
    assert pixels_of(encoded(picture, exif=turned(6))) == [[RED], [BLUE]]
    assert pixels_of(encoded(picture, exif=turned(3))) == [[BLUE, RED]]


def test_transparent_pixels_are_white_whatever_they_hide() -> None:
    picture = Image.new("RGBA", (3, 1), (*RED, 255))
    picture.putpixel((1, 0), (*RED, 0))
    picture.putpixel((2, 0), (*RED, 51))  # one fifth red, four fifths white: 255 * 4 / 5 = 204
    assert pixels_of(encoded(picture)) == [[RED, WHITE, (255, 204, 204)]]


def test_grey_with_alpha_is_composed_on_white() -> None:
    picture = Image.new("LA", (2, 1), (100, 255))
    picture.putpixel((1, 0), (100, 0))
    assert pixels_of(encoded(picture)) == [[(100, 100, 100), WHITE]]


def test_transparent_colour_of_a_palette_is_white() -> None:
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([*RED, *BLUE])
    picture.putpixel((1, 0), 1)
    assert pixels_of(encoded(picture)) == [[RED, BLUE]]
    assert pixels_of(encoded(picture, transparency=1)) == [[RED, WHITE]]


def test_sixteen_bits_are_scaled_to_eight() -> None:
    # 65535 / 257 = 255, 21074 / 257 = 82
    picture = Image.fromarray(np.array([[0, 21074, 65535]], dtype=np.uint16))
    assert pixels_of(encoded(picture)) == [[(0, 0, 0), (82, 82, 82), WHITE]]


def test_dark_photo_of_sixteen_bits_stays_dark() -> None:
    # 200 / 257 rounds to 1; taken for eight bits it would be a light grey.
    picture = Image.fromarray(np.array([[0, 200]], dtype=np.uint16))
    assert pixels_of(encoded(picture)) == [[(0, 0, 0), (1, 1, 1)]]


def test_cmyk_comes_out_in_its_own_colours() -> None:
    picture = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan: red
    red, green, blue = pixels_of(encoded(picture, "JPEG", quality=100))[4][4]
    assert red > 250
    assert max(green, blue) < 5


def test_grey_is_expanded_to_three_channels() -> None:
    assert pixels_of(encoded(Image.new("L", (1, 1), 100))) == [[(100, 100, 100)]]
    assert pixels_of(encoded(Image.new("1", (1, 1), 1))) == [[WHITE]]


def test_first_frame_of_an_animation_is_the_photo() -> None:
    frames = [Image.new("RGB", (1, 1), colour) for colour in (RED, BLUE)]
    assert pixels_of(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])) == [[RED]]


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    header_only = encoded(noise(30, 31))[:60]
    error = refusal_of(header_only, max_pixels=929)
    assert error.reason == "too_many_pixels"
    assert str(error) == "photo has 30 x 31 pixels, at most 929 are accepted; make it smaller"
    assert refusal_of(header_only, max_pixels=930).reason == "damaged"


def test_header_that_claims_billions_of_pixels_is_refused() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 65000, 65000, 8, 6, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    error = refusal_of(data + struct.pack(">I", 9999) + b"IDAT")
    assert error.reason == "too_many_pixels"
    assert str(error).startswith("photo has too many pixels (")


def test_truncated_jpeg_is_damaged() -> None:
    data = encoded(noise(64, 64), "JPEG")
    error = refusal_of(data[: len(data) // 2])
    assert error.reason == "damaged"
    assert str(error).startswith("photo cannot be decoded (image file is truncated")
    assert str(error).endswith("; give a whole one")


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"\xff\xd8\xff"])
def test_what_is_no_photo_is_refused(data: bytes) -> None:
    error = refusal_of(data)
    assert error.reason == "not_an_image"
    assert str(error) == f"not a photo ({len(data)} bytes); give JPEG, PNG or WebP"


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_damaged_avif_is_refused_like_any_other() -> None:
    data = encoded(Image.new("RGB", (64, 64), RED), "AVIF")
    payload = data.index(b"mdat") + 4
    assert refusal_of(data[:payload] + b"\xff" * (len(data) - payload)).reason == "damaged"


def test_photo_with_damaged_exif_is_still_a_photo() -> None:
    data = encoded(Image.new("RGB", (8, 4), RED), "JPEG", exif=turned(6))
    tag_count = data.index(b"Exif\0\0MM\0*\0\0\0\x08") + 14
    damaged = data[:tag_count] + b"\x00\xff" + data[tag_count + 2 :]  # 255 tags are promised, one is there
    assert sorted(decode_image(damaged).size) == [4, 8]


@pytest.mark.parametrize("size", [(50, 37), (32, 32), (7, 90)])
def test_pixels_are_those_of_the_checkpoint_s_own_processor(size: tuple[int, int]) -> None:
    picture, how = noise(*size), ImagePreprocessing(size_px=32)
    processor = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    expected = processor(images=picture, return_tensors="np")["pixel_values"]
    pixels = to_pixels(picture, how)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    ours = normalise(torch.from_numpy(pixels.copy())[None], how).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_mean_deviation_and_filter_are_followed() -> None:
    picture = noise(50, 37)
    how = ImagePreprocessing(
        size_px=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), resample=int(Image.Resampling.BILINEAR)
    )
    processor = transformers.SiglipImageProcessorPil(
        size={"height": 16, "width": 16}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4], resample=2
    )
    expected = processor(images=picture, return_tensors="np")["pixel_values"]
    ours = normalise(torch.from_numpy(to_pixels(picture, how).copy())[None], how).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_title_is_composed_spaced_and_lowered() -> None:
    title = "  ＲＥＤ\u3000Shoes \t\nﾊﾞｯｸﾞ "  # full-width letters and space, half-width kana
    assert normalise_title(title, TextPreprocessing(max_length=8)) == "red shoes バッグ"
    assert normalise_title(title, TextPreprocessing(8, lower_case=False)) == "RED Shoes バッグ"


def test_tokens_are_padded_and_cut_to_max_length_without_a_mask(tmp_path: Path) -> None:
    titles = ["red shoes", "blue bag", "green hat with a ribbon", "old wooden chair"]
    build_tiny(tmp_path, titles, TinyConfig(max_length=6, num_layers=1, text_num_layers=1), seed=0)
    tokenizer = load_tokenizer(tmp_path)
    tokens = to_tokens(tokenizer, ["", "green hat with a ribbon"], TextPreprocessing(max_length=6))
    assert tokens.shape == (2, 6)
    assert tokens.dtype == np.int64
    assert tokens[0].tolist() == [tokenizer.eos_token_id] * 6  # SigLIP pads with its end-of-text piece
    assert tokens[1, -1] == tokenizer.eos_token_id
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert (tokens[1, :-1] != tokenizer.pad_token_id).all()


@pytest.mark.parametrize(
    ("size", "at_least_px", "wanted"),
    [
        ((800, 400), 200, (400, 200)),  # half: both sides keep 200
        ((800, 400), 201, (800, 400)),
        ((800, 400), 50, (100, 50)),  # an eighth is the least
        ((803, 401), 100, (201, 101)),
    ],
)
def test_jpeg_is_decoded_no_larger_than_needed(
    size: tuple[int, int], at_least_px: int, wanted: tuple[int, int]
) -> None:
    data = encoded(noise(*size), "JPEG")
    assert decode_image(data, at_least_px=at_least_px).size == wanted
    assert decode_image(data).size == size


def test_scaled_decoding_turns_upright_too() -> None:
    data = encoded(noise(160, 80), "JPEG", exif=turned(6))
    assert decode_image(data, at_least_px=40).size == (40, 80)


def test_other_formats_have_no_scaled_decoding() -> None:
    assert decode_image(encoded(noise(160, 80)), at_least_px=8).size == (160, 80)


@pytest.mark.parametrize("size_px", [24, 48])
def test_scaled_decoding_moves_no_vector_by_more_than_the_law_allows(tmp_path: Path, size_px: int) -> None:
    """Golden items, drawn large: cosine distance to the whole decoding below 1e-3 (law 2)."""
    how = ImagePreprocessing(size_px=size_px)
    build_tiny(
        tmp_path, ["a red cup", "a blue hat"], TinyConfig(image_size_px=size_px, vocab_size=40), seed=7
    )
    encoder = SiglipEncoder(tmp_path, space_id="", text=TextPreprocessing(max_length=8))
    photos = [render_item(item, 512) for item in generate_items(6, seed=3)]
    assert decode_image(photos[0], at_least_px=3 * size_px).size[0] < 512
    fast = encoder.embed_pixels(np.stack([photo_pixels(photo, how) for photo in photos]))
    whole = encoder.embed_pixels(np.stack([to_pixels(decode_image(photo), how) for photo in photos]))
    assert float((1.0 - (fast * whole).sum(axis=1)).max()) < 1e-3
