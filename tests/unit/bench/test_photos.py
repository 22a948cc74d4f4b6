"""Benchmark photos have the requested size, the bytes per pixel of camera photos, and form a valid ShardSet."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from raysys.bench.photos import make_shard_set, photo_like
from raysys.shards.reader import read_shard, shards_of
from raysys.synth import generate_items


@pytest.mark.parametrize("megapixels", [0.05, 0.3])
def test_photo_has_the_requested_size_and_bytes_per_pixel(megapixels: float) -> None:
    data = photo_like(generate_items(1, 7)[0], megapixels, seed=1)
    with Image.open(io.BytesIO(data)) as photo:
        width, height = photo.size
        assert (photo.format, photo.mode) == ("JPEG", "RGB")
    assert width * height == pytest.approx(megapixels * 1e6, rel=0.02)
    assert width / height == pytest.approx(4 / 3, rel=0.02)
    assert 0.15 < len(data) / (width * height) < 0.6  # bytes per pixel at quality 90


def test_same_seed_gives_the_same_bytes() -> None:
    item = generate_items(1, 7)[0]
    assert photo_like(item, 0.01, seed=1) == photo_like(item, 0.01, seed=1) != photo_like(item, 0.01, seed=2)


def test_shard_set_contains_every_item_once(tmp_path: Path) -> None:
    uri = make_shard_set(tmp_path / "set", 0.01, num_items=7, num_distinct=2, items_per_shard=3, seed=7)
    shards = shards_of(uri)
    assert [shard.num_items for shard in shards] == [3, 3, 1]
    items = [item for shard in shards for item in read_shard(shard)]
    assert sorted(item.item_id for item in items) == sorted(item.item_id for item in generate_items(7, 7))
    assert len({item.image for item in items}) == 2
