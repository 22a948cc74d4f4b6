"""Shards through Ray Data: batches are a function of position, whoever consumes them, and damage stops them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray.data
from PIL import Image

from raysys.config.schema import StreamConfig
from raysys.errors import DamagedData
from raysys.records import Item
from raysys.stream.order import rows_of, windows
from raysys.stream.read import embedding_stream, training_stream
from raysys.stream.tar import ShardRef, read_shard
from tests.packed import packed_shards

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    # Ray 2.60 sets its own deprecated settings when it makes a DataContext.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
SECTION = StreamConfig(shuffle_window_shards=2, decode_concurrency=1)
NUM_ITEMS, BATCH = 50, 8
Batch = tuple[list[int], list[str]]  # positions, items


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[ShardRef]:
    """Fifty items in shards of 15, 15, 15 and 5."""
    return packed(tmp_path_factory.mktemp("shards"))


def packed(folder: Path) -> list[ShardRef]:
    Image.new("RGB", (8, 8), "red").save(folder / "red.jpg", "JPEG")
    photo = (folder / "red.jpg").read_bytes()
    items = [
        Item(f"i{number:02d}", f"cup {number}", photo, {"seller": "anna"}) for number in range(NUM_ITEMS)
    ]
    return packed_shards(folder, items, items_per_shard=15)


def say_which() -> Callable[[pa.Table], Any]:
    """A decoder that tells items and positions; made here so that it travels by value."""

    def decode(block: pa.Table) -> dict[str, np.ndarray]:
        return {
            "position": block.column("stream_position").to_numpy(),
            "number": np.array([int(item_id[1:]) for item_id in block.column("item_id").to_pylist()]),
        }

    return decode


def global_batches(
    shards: list[ShardRef], num_consumers: int, start: int, stop: int, section: StreamConfig = SECTION
) -> list[Batch]:
    """What `num_consumers` ranks read at the same time, put together step by step."""
    stream = training_stream(
        shards, say_which(), section, seed=7, start=start, stop=stop, rows_per_block=BATCH // num_consumers
    )
    iterators = stream.streaming_split(num_consumers, equal=True)

    def consume(iterator: ray.data.DataIterator) -> list[dict[str, np.ndarray]]:
        return list(iterator.iter_batches(batch_size=None, batch_format="numpy"))  # type: ignore[arg-type]  # whole blocks

    with ThreadPoolExecutor(num_consumers) as pool:
        by_rank = list(pool.map(consume, iterators))
    return [
        (
            np.concatenate([part["position"] for part in parts]).tolist(),
            [f"i{number:02d}" for part in parts for number in part["number"]],
        )
        for parts in zip(*by_rank, strict=True)
    ]


def endless_sequence(shards: list[ShardRef], start: int, stop: int) -> list[str]:
    """The slow twin: the plan followed in this process."""
    sizes = [shard.num_items for shard in shards]
    items: list[str] = []
    for window in windows(sizes, seed=7, shards_per_window=2, start=start, stop=stop):
        stored = [found.item.item_id for number in window.shards for found in read_shard(shards[number])]
        items += [stored[row] for row in rows_of(window, len(stored))]
    return items


@pytest.mark.parametrize("num_consumers", [1, 2, 4])
def test_any_number_of_consumers_gets_the_same_global_batches(
    shards: list[ShardRef], num_consumers: int
) -> None:
    # 96 samples are 12 batches and almost two epochs, so that one batch lies across the seam.
    batches = global_batches(shards, num_consumers, 0, 96)
    wanted = endless_sequence(shards, 0, 96)
    assert [items for _, items in batches] == [wanted[start : start + BATCH] for start in range(0, 96, BATCH)]
    assert [position for positions, _ in batches for position in positions] == list(range(96))


def test_start_in_the_middle_goes_on_with_the_very_next_sample(shards: list[ShardRef]) -> None:
    batches = global_batches(shards, 2, 40, 96)
    assert [position for positions, _ in batches for position in positions] == list(range(40, 96))
    assert [item for _, items in batches for item in items] == endless_sequence(shards, 0, 96)[40:]


def test_reading_ahead_and_decoding_in_parallel_keep_the_order(shards: list[ShardRef]) -> None:
    eager = SECTION.model_copy(update={"read_concurrency": 3, "decode_concurrency": 2})
    batches = global_batches(shards, 2, 0, 96, eager)
    assert [item for _, items in batches for item in items] == endless_sequence(shards, 0, 96)


def damaged(shards: list[ShardRef], number: int, folder: Path) -> list[ShardRef]:
    """The shards, of which one has lost its end."""
    whole = Path(shards[number].uri).read_bytes()
    path = folder / f"{number:05d}.tar"
    path.write_bytes(whole[: len(whole) // 2])
    found = shards[number]
    return [
        *shards[:number],
        ShardRef(str(path), found.split, found.num_items, found.sha256),
        *shards[number + 1 :],
    ]


def test_damaged_shard_stops_training_by_name(shards: list[ShardRef], tmp_path: Path) -> None:
    broken = damaged(shards, 2, tmp_path)
    stream = training_stream(broken, say_which(), SECTION, seed=7, start=0, stop=48, rows_per_block=8)
    with pytest.raises(DamagedData, match=f"{tmp_path}/00002.tar: .* another SHA-256 than its manifest says"):
        list(stream.iter_batches(batch_size=None))


def test_damaged_shard_stops_embedding_by_name(shards: list[ShardRef], tmp_path: Path) -> None:
    stream = embedding_stream(damaged(shards, 1, tmp_path), say_which(), SECTION)
    with pytest.raises(DamagedData, match=f"{tmp_path}/00001.tar: .* another SHA-256 than its manifest says"):
        list(stream.iter_batches(batch_size=None))


def test_embedding_gets_each_item_once_in_blocks_of_one_shard(shards: list[ShardRef]) -> None:
    def say_all(block: pa.Table) -> pa.Table:
        return block.drop_columns(["image"])

    blocks: list[Any] = list(
        embedding_stream(shards, say_all, SECTION).iter_batches(batch_size=None, batch_format="pyarrow")
    )
    assert [set(block.column("shard").to_pylist()) for block in blocks] == [{shard.uri} for shard in shards]
    assert [len(block) for block in blocks] == [15, 15, 15, 5]
    items = [item_id for block in blocks for item_id in block.column("item_id").to_pylist()]
    assert items == [stored.item.item_id for shard in shards for stored in read_shard(shard)]
    assert sorted(items) == [f"i{number:02d}" for number in range(NUM_ITEMS)]
