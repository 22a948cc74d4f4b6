"""Blocks of compressed rows become arrays of the documented shapes, and captions get their keys."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysys.columns import SKIP_REASONS, content_hash
from raysys.config.schema import AugmentConfig
from raysys.encoder.preprocess import ImagePreprocessing, decode_image, to_pixels
from raysys.encoder.text import TextPreprocessing, caption_keys
from raysys.shards.reader import Item, ShardRef
from raysys.stream.augment import augmented_pixels, item_rng
from raysys.stream.blocks import BlockBuilder
from raysys.stream.decode import EmbeddingDecoder, TrainingDecoder
from raysys.stream.earlier_vectors import EarlierVectors
from raysys.stream.teacher import TeacherVectors
from raysys.types import Attributes
from tests.embedding_sets import publish_set
from tests.factories import photo, tiny_checkpoint

IMAGE, TEXT = ImagePreprocessing(size_px=16), TextPreprocessing(max_length=6)
TITLES = ["red dress", "Red  DRESS", "blue cup", "green hat"]
PHOTOS = [photo(colour, (20, 12)) for colour in ("red", "crimson", "blue", "green")]


def block() -> pa.Table:
    attributes: list[Attributes] = [
        {"colour": "red", "size": 7},
        {"colour": "red"},
        {"colour": None},
        {"colour": "green", "size": 7},
    ]
    builder = BlockBuilder(1 << 20)
    for number, values in enumerate(attributes):
        item = Item(f"i{number}", TITLES[number], PHOTOS[number], values, "same" if number < 2 else "")
        coordinates = (number // 3, 8 + number, 5, number)
        assert not list(builder.add(item, ShardRef("a.tar", "train", 4, 4096), coordinates))
    (table,) = builder.flush()
    return table


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small checkpoint and its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    return tiny_checkpoint(folder, [f"{title} number {n}" for n, title in enumerate(TITLES * 5)])


def decoder(encoder: str, *captions: str) -> TrainingDecoder:
    return TrainingDecoder(encoder, IMAGE, TEXT, AugmentConfig(), captions, seed=7)


def test_training_batch_has_the_documented_shapes_and_types(encoder: str) -> None:
    batch = decoder(encoder, "colour", "size")(block())
    shapes = {name: (array.shape, array.dtype.name) for name, array in batch.items()}
    assert shapes == {
        "pixels": ((4, 16, 16, 3), "uint8"),
        "tokens": ((4, 3, 6), "int64"),
        "caption_keys": ((4, 3), "int64"),
        "group_keys": ((4,), "int64"),
        "skipped": ((4,), "int64"),
        "epoch": ((4,), "int64"),
        "stream_position": ((4,), "int64"),
        "shard_number": ((4,), "int64"),
        "sample_number": ((4,), "int64"),
    }
    assert batch["stream_position"].tolist() == [8, 9, 10, 11]
    assert batch["skipped"].tolist() == [0, 0, 0, 0]


def test_patch_seeds_differ_by_position_and_by_the_seed_of_the_run(encoder: str) -> None:
    seeds = [
        dataclasses.replace(decoder(encoder), with_patch_seeds=True, seed=seed)(block())[
            "patch_seeds"
        ].tolist()
        for seed in (0, 0, 1)
    ]
    assert seeds[0] == seeds[1] == block().column("stream_position").to_pylist()
    assert not set(seeds[0]) & set(seeds[2])


def test_teacher_adds_a_column(encoder: str, tmp_path: Path) -> None:
    teacher = TeacherVectors(str(tmp_path), 2)
    teacher.write(5, pa.array(["i3", "i1"]), np.array([[0, 1], [1, 0]], np.float16))
    batch = dataclasses.replace(decoder(encoder), teacher=teacher)(block())
    assert batch["teacher"].dtype == np.float16
    assert batch["teacher"].tolist() == [[0, 0], [1, 0], [0, 0], [0, 1]]


def test_listings_of_a_group_share_a_key_and_others_have_unique_keys(encoder: str) -> None:
    keys = decoder(encoder)(block())["group_keys"].tolist()
    assert keys[0] == keys[1] >= 0
    assert keys[2:] == [-11, -12]  # -1 - stream position


def test_skipped_sample_has_black_pixels_no_captions_and_a_reason(encoder: str) -> None:
    rows = block().to_pylist()
    rows[1] |= {"reason": "missing", "image": b""}
    rows[2] |= {"image": b"no photo"}
    batch = decoder(encoder, "colour")(pa.Table.from_pylist(rows, schema=block().schema))
    assert batch["skipped"].tolist() == [0, 2, 6, 0]
    assert [SKIP_REASONS[code - 1] for code in (2, 6)] == ["missing", "unreadable_photo"]
    assert batch["caption_keys"][1:3].tolist() == [[0, 0], [0, 0]]
    assert not batch["pixels"][1:3].any()
    undamaged = decoder(encoder, "colour")(block())
    for name in ("pixels", "tokens", "caption_keys"):
        assert np.array_equal(batch[name][[0, 3]], undamaged[name][[0, 3]])


def test_embedding_row_with_an_unreadable_photo_has_a_reason() -> None:
    rows = block().to_pylist()
    rows[2] |= {"image": b"no photo"}
    decoded = EmbeddingDecoder(IMAGE)(pa.Table.from_pylist(rows, schema=block().schema)).to_pylist()
    assert [row["reason"] for row in decoded] == ["", "", "unreadable_photo", ""]
    assert decoded[2]["pixels"] == b""
    assert decoded[2]["detail"] == "not a photo (8 bytes); give JPEG, PNG or WebP"


def test_photo_of_an_earlier_set_gets_its_vector_and_is_not_decoded(tmp_path: Path) -> None:
    rows = block().to_pylist()
    rows[0] |= {"image": b"no photo"}  # known content is not looked at
    vectors = np.eye(2, dtype=np.float32)
    files = {"train-a-0.parquet": [("old", b"no photo"), ("x", PHOTOS[1])]}
    manifest = publish_set(str(tmp_path / "old"), files, vectors, title=TITLES[0])
    earlier = EarlierVectors.write(str(tmp_path / "old"), manifest, str(tmp_path / "table"))
    decode = EmbeddingDecoder(IMAGE, earlier)
    decoded = decode(pa.Table.from_pylist(rows, schema=block().schema)).to_pylist()
    assert [row["embedding"] for row in decoded] == [[1.0, 0.0], None, None, None]  # the second title differs
    assert [row["reason"] for row in decoded] == [""] * 4
    assert [len(row["pixels"]) for row in decoded] == [0, *[16 * 16 * 3] * 3]


def test_pixels_depend_only_on_seed_epoch_and_item(encoder: str) -> None:
    pixels = decoder(encoder)(block())["pixels"]
    alone = decoder(encoder)(block().slice(3, 1))["pixels"]
    assert np.array_equal(pixels[3:], alone)
    expected = augmented_pixels(decode_image(PHOTOS[3]), IMAGE, AugmentConfig(), item_rng(7, 1, "i3"))
    assert np.array_equal(pixels[3], expected)


def test_equal_titles_have_equal_tokens_and_keys(encoder: str) -> None:
    batch = decoder(encoder)(block())
    assert np.array_equal(batch["tokens"][0], batch["tokens"][1])  # case and blanks are normalised
    keys = batch["caption_keys"][:, 0].tolist()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert 0 not in keys


def test_caption_attributes_have_keys_and_a_missing_one_has_key_0(encoder: str) -> None:
    batch = decoder(encoder, "colour", "size")(block())
    title, colour, size = batch["caption_keys"].T.tolist()
    assert (colour[0] == colour[1] != 0, colour[2], colour[3] not in (0, colour[0])) == (True, 0, True)
    assert (size[0] == size[3] != 0, size[1], size[2]) == (True, 0, 0)
    assert set(title).isdisjoint(colour)
    alone = decoder(encoder, "size")(block())
    assert np.array_equal(alone["tokens"][:, 1], batch["tokens"][:, 2])


def test_keys_are_computed_from_the_normalised_title() -> None:
    same = caption_keys(["Ｒｅｄ dress", "red  DRESS ", "", "  "], TEXT)
    assert same[0] == same[1] != 0
    assert same[2:].tolist() == [0, 0]
    cased = caption_keys(["Red dress", "red dress"], TextPreprocessing(max_length=6, lower_case=False))
    assert cased[0] != cased[1]


def test_key_is_the_first_64_bits_of_a_hash() -> None:
    expected = int.from_bytes(hashlib.sha256(b"blue cup").digest()[:8], "big", signed=True)
    assert caption_keys(["Blue cup"], TEXT).tolist() == [expected]


def test_embedding_block_has_pixels_and_content_hashes() -> None:
    decoded = EmbeddingDecoder(IMAGE)(block())
    added = {"pixels", "content_hash", "embedding"}
    assert set(decoded.column_names) == set(block().column_names) - {"image"} | added
    pixels = [np.frombuffer(row, np.uint8).reshape(16, 16, 3) for row in decoded.column("pixels").to_pylist()]
    for array, data in zip(pixels, PHOTOS, strict=True):
        assert np.array_equal(array, to_pixels(decode_image(data), IMAGE))  # no augmentation
    hashes = decoded.column("content_hash").to_pylist()
    assert hashes == [content_hash(data, title) for data, title in zip(PHOTOS, TITLES, strict=True)]


def test_content_hash_depends_on_photo_and_title() -> None:
    assert content_hash(b"ab", "c") == hashlib.sha256(b"ab\x00c").hexdigest()
    assert len({content_hash(b"ab", "c"), content_hash(b"ab", "d"), content_hash(b"ac", "c")}) == 3
