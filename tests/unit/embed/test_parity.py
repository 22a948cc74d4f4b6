"""The parity gate: what it measures, and that it fails for each way to a vector that differs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from raysys.artifacts import Parity
from raysys.config import Config
from raysys.embed.parity import ParityPaths, check_parity, golden_items
from raysys.encoder.bundle import preprocessing_of
from raysys.errors import ParityFailed
from raysys.shards.reader import Item, ShardRef
from raysys.stream.decode import EmbeddingDecoder
from raysys.stream.earlier_vectors import EarlierVectors
from tests.embedding_sets import publish_set
from tests.factories import TINY, tiny_bundle, write_shards

NUM_ITEMS = 40


def large_photo(number: int) -> bytes:
    """A JPEG of noise, whose pixels depend on the size at which it is decoded."""
    noise = np.random.default_rng(number).integers(0, 256, (300, 400, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_bundle(tmp_path_factory.mktemp("encoder"), ["red cup", "blue cup"])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[ShardRef]:
    items = [Item(f"i{number}", "cup", large_photo(number)) for number in range(NUM_ITEMS)]
    items[5] = Item("i5", "cup", b"no photo")
    return write_shards(tmp_path_factory.mktemp("shards"), items, 8)


def check(
    encoder: str,
    golden: pa.Table,
    tolerance: float = 0.01,
    earlier: EarlierVectors | None = None,
    **settings: object,
) -> Parity | None:
    paths = ParityPaths.of(Config.model_validate(settings))
    decoder = EmbeddingDecoder(preprocessing_of(encoder)[0], earlier)
    return check_parity(encoder, golden, paths, tolerance, map, decoder)


def test_golden_items_are_spread_over_the_catalogue_and_the_same_every_time(shards: list[ShardRef]) -> None:
    golden = golden_items(shards, 8)
    assert golden.column("item_id").to_pylist() == ["i2", "i6", "i10", "i14", "i26", "i30", "i34", "i38"]
    assert golden_items(shards, 8).equals(golden)
    assert len(golden_items(shards[:1], 100)) == 7  # all of its items but the one that cannot be decoded
    assert len(golden_items(shards, 2)) == 2
    assert len(golden_items(shards, 0)) == 0


def test_same_photo_has_the_same_vector_in_fp32_at_full_size(encoder: str, shards: list[ShardRef]) -> None:
    golden = golden_items(shards, 8)
    image, _ = preprocessing_of(encoder)
    # The decoded size that training needs is that of the batch, three times the model's.
    assert image.size_px == TINY.image_size_px
    parity = check(encoder, golden, train={"augment": {"crop_min_area": 1 / 9}})
    assert parity is not None
    assert parity.num_items == 8
    assert parity.largest == {"batch": pytest.approx(0, abs=1e-6), "training": pytest.approx(0, abs=1e-6)}


def test_bf16_and_scaled_decoding_count(encoder: str, shards: list[ShardRef]) -> None:
    golden = golden_items(shards, 8)
    scaled = check(encoder, golden, train={"augment": {"crop_min_area": 1.0}})
    rounded = check(encoder, golden, embed={"precision": "bf16"}, train={"augment": {"crop_min_area": 1 / 9}})
    assert scaled is not None
    assert rounded is not None
    assert scaled.largest["training"] > 1e-6 > abs(scaled.largest["batch"])
    assert rounded.largest["batch"] > 1e-6 > abs(rounded.largest["training"])


def test_difference_above_the_tolerance_names_the_worst_item(encoder: str, shards: list[ShardRef]) -> None:
    golden = golden_items(shards, 8)
    measured = check(encoder, golden, embed={"precision": "bf16"})
    assert measured is not None
    with pytest.raises(ParityFailed) as caught:
        check(encoder, golden, tolerance=1e-9, embed={"precision": "bf16"})
    worst, shard = measured.worst_items["batch"], golden.column("shard").to_pylist()
    where = shard[golden.column("item_id").to_pylist().index(worst)]
    assert str(caught.value) == (
        f"{encoder}: the vector of item '{worst}' ({where}) in batch differs from that of the service by "
        f"{measured.largest['batch']:.2g} (1 - cosine), above embed.parity_tolerance 1e-09; "
        "set embed.precision=fp32 and embed.reuse=none, or raise the tolerance"
    )


def test_vector_that_would_be_carried_over_is_measured(
    encoder: str, shards: list[ShardRef], tmp_path: Path
) -> None:
    golden = golden_items(shards, 8)
    wrong = np.eye(TINY.hidden_size, dtype=np.float32)[:1]
    manifest = publish_set(str(tmp_path / "old"), {"train-a-0.parquet": [("x", large_photo(26))]}, wrong)
    earlier = EarlierVectors.write(str(tmp_path / "old"), manifest, str(tmp_path / "table"))
    with pytest.raises(ParityFailed, match="the vector of item 'i26' .* in batch differs"):
        check(encoder, golden, earlier=earlier)
