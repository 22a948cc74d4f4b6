"""Blocks of compressed rows become arrays of the promised shapes, and captions get their keys."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from raysys.config.schema import AugmentConfig, TinyConfig
from raysys.encoder.preprocess import ImagePreprocessing, TextPreprocessing, decode_image, to_pixels
from raysys.encoder.tiny import build_tiny
from raysys.stream.augment import augmented_pixels, item_rng
from raysys.stream.decode import EmbeddingDecoder, TrainingDecoder, caption_keys, content_hash

IMAGE, TEXT = ImagePreprocessing(size_px=16), TextPreprocessing(max_length=6)
TITLES = ["red dress", "Red  DRESS", "blue cup", "green hat"]
SIZE = TinyConfig(
    image_size_px=16,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    text_num_layers=1,
    vocab_size=60,
    max_length=6,
)


def photo(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (20, 12), colour).save(data, "JPEG")
    return data.getvalue()


PHOTOS = [photo(colour) for colour in ("red", "crimson", "blue", "green")]


def block() -> pa.Table:
    attributes = [
        {"colour": "red", "size": 7},
        {"colour": "red"},
        {"colour": None},
        {"colour": "green", "size": 7},
    ]
    return pa.table(
        {
            "item_id": ["i0", "i1", "i2", "i3"],
            "title": TITLES,
            "attributes": [json.dumps(values) for values in attributes],
            "image": pa.array(PHOTOS, pa.large_binary()),
            "epoch": [0, 0, 0, 1],
            "stream_position": [8, 9, 10, 11],
        }
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small checkpoint and its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny(folder, [f"{title} number {n}" for n, title in enumerate(TITLES * 5)], SIZE, seed=7)
    return str(folder)


def decoder(encoder: str, *captions: str) -> TrainingDecoder:
    return TrainingDecoder(encoder, IMAGE, TEXT, AugmentConfig(), captions, seed=7)


def test_training_batch_has_the_promised_shapes_and_types(encoder: str) -> None:
    batch = decoder(encoder, "colour", "size")(block())
    shapes = {name: (array.shape, array.dtype.name) for name, array in batch.items()}
    assert shapes == {
        "pixels": ((4, 16, 16, 3), "uint8"),
        "tokens": ((4, 3, 6), "int64"),
        "caption_keys": ((4, 3), "int64"),
        "stream_position": ((4,), "int64"),
    }
    assert batch["stream_position"].tolist() == [8, 9, 10, 11]


def test_pixels_depend_on_seed_epoch_and_item_alone(encoder: str) -> None:
    pixels = decoder(encoder)(block())["pixels"]
    alone = decoder(encoder)(block().slice(3, 1))["pixels"]
    assert np.array_equal(pixels[3:], alone)
    wanted = augmented_pixels(decode_image(PHOTOS[3]), IMAGE, AugmentConfig(), item_rng(7, 1, "i3"))
    assert np.array_equal(pixels[3], wanted)


def test_equal_titles_have_equal_tokens_and_keys(encoder: str) -> None:
    batch = decoder(encoder)(block())
    assert np.array_equal(batch["tokens"][0], batch["tokens"][1])  # case and blanks do not count
    keys = batch["caption_keys"][:, 0].tolist()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert 0 not in keys


def test_attributes_are_captions_and_a_missing_one_has_key_0(encoder: str) -> None:
    batch = decoder(encoder, "colour", "size")(block())
    title, colour, size = batch["caption_keys"].T.tolist()
    assert (colour[0] == colour[1] != 0, colour[2], colour[3] not in (0, colour[0])) == (True, 0, True)
    assert (size[0] == size[3] != 0, size[1], size[2]) == (True, 0, 0)
    assert set(title).isdisjoint(colour)
    alone = decoder(encoder, "size")(block())
    assert np.array_equal(alone["tokens"][:, 1], batch["tokens"][:, 2])


def test_keys_follow_the_title_as_the_model_sees_it() -> None:
    same = caption_keys(["Ｒｅｄ dress", "red  DRESS ", "", "  "], TEXT)
    assert same[0] == same[1] != 0
    assert same[2:].tolist() == [0, 0]
    cased = caption_keys(["Red dress", "red dress"], TextPreprocessing(max_length=6, lower_case=False))
    assert cased[0] != cased[1]


def test_key_is_the_first_64_bits_of_a_hash() -> None:
    wanted = int.from_bytes(hashlib.sha256(b"blue cup").digest()[:8], "big", signed=True)
    assert caption_keys(["Blue cup"], TEXT).tolist() == [wanted]


def test_embedding_block_has_pixels_and_hashes_for_photos() -> None:
    decoded = EmbeddingDecoder(IMAGE)(block())
    assert set(decoded.column_names) == set(block().column_names) - {"image"} | {"pixels", "content_hash"}
    pixels = [np.frombuffer(row, np.uint8).reshape(16, 16, 3) for row in decoded.column("pixels").to_pylist()]
    for array, data in zip(pixels, PHOTOS, strict=True):
        assert np.array_equal(array, to_pixels(decode_image(data), IMAGE))  # as it is: no augmentation
    hashes = decoded.column("content_hash").to_pylist()
    assert hashes == [content_hash(data, title) for data, title in zip(PHOTOS, TITLES, strict=True)]


def test_content_hash_changes_with_photo_and_with_title() -> None:
    assert content_hash(b"ab", "c") == hashlib.sha256(b"ab\x00c").hexdigest()
    assert len({content_hash(b"ab", "c"), content_hash(b"ab", "d"), content_hash(b"ac", "c")}) == 3
