"""Shards through Ray Data: batches depend only on their position, and damage affects only the damaged samples."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray.data
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

from raysys.config.schema import StreamConfig
from raysys.shards.reader import Item, ShardRef, read_shard
from raysys.stream.concurrency import Concurrency
from raysys.stream.order import rows_of, windows, worker_positions
from raysys.stream.read import embedding_stream, training_stream
from tests.factories import photo, write_shards

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    # Ray 2.60 sets its own deprecated settings when it makes a DataContext.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
SECTION = StreamConfig(shuffle_window_shards=2)
SMALLEST = Concurrency(decoders=1, readers=1)
NUM_ITEMS, BATCH = 50, 8
Batch = tuple[list[int], list[str]]  # positions, items


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[ShardRef]:
    """Fifty items in shards of 15, 15, 15 and 5."""
    items = [Item(f"i{number:02d}", f"cup {number}", photo()) for number in range(NUM_ITEMS)]
    return write_shards(tmp_path_factory.mktemp("shards"), items, 15)


def decode_numbers() -> Callable[[pa.Table], Any]:
    """A decoder that returns positions and item numbers; a closure, so that Ray pickles it by value."""

    def decode(block: pa.Table) -> dict[str, np.ndarray]:
        items = zip(block.column("item_id").to_pylist(), block.column("reason").to_pylist(), strict=True)
        return {
            "position": block.column("stream_position").to_numpy(),
            "number": np.array([-1 if reason else int(item_id[1:]) for item_id, reason in items]),
        }

    return decode


def global_batches(
    shards: list[ShardRef],
    num_consumers: int,
    start: int,
    stop: int,
    concurrency: Concurrency = SMALLEST,
) -> list[Batch]:
    """The batches that `num_consumers` ranks read at the same time, concatenated per step."""
    stream = training_stream(
        shards,
        decode_numbers(),
        SECTION,
        concurrency,
        seed=7,
        start=start,
        stop=stop,
        rows_per_block=BATCH // num_consumers,
    )
    by_rank = consume_in_parallel(stream, num_consumers)
    return [
        (
            np.concatenate([part["position"] for part in parts]).tolist(),
            [f"i{number:02d}" for part in parts for number in part["number"]],
        )
        for parts in zip(*by_rank, strict=True)
    ]


def consume_in_parallel(stream: ray.data.Dataset, num_consumers: int) -> list[list[dict[str, np.ndarray]]]:
    """The blocks that each rank gets when all read at the same time, dealt as in Ray Train."""

    def consume(iterator: Any) -> list[dict[str, np.ndarray]]:  # Ray's types do not allow batch_size=None
        return list(iterator.iter_batches(batch_size=None, batch_format="numpy"))

    with ThreadPoolExecutor(num_consumers) as pool:
        return list(pool.map(consume, stream.streaming_split(num_consumers, equal=True)))


def endless_sequence(shards: list[ShardRef], start: int, stop: int) -> list[str]:
    """Reference implementation: the samples of the plan, read in this process."""
    sizes = [shard.num_items for shard in shards]
    items: list[str] = []
    for window in windows(sizes, seed=7, shards_per_window=2, start=start, stop=stop):
        item_ids = [item.item_id for number in window.shards for item in read_shard(shards[number])]
        items += [item_ids[row] for row in rows_of(window, len(item_ids))]
    return items


@pytest.mark.parametrize("num_consumers", [1, 4])
def test_every_number_of_consumers_gets_the_same_global_batches(
    shards: list[ShardRef], num_consumers: int
) -> None:
    # 96 samples are 12 batches and almost two epochs, so one batch spans both epochs.
    batches = global_batches(shards, num_consumers, 0, 96)
    expected = endless_sequence(shards, 0, 96)
    assert [items for _, items in batches] == [
        expected[start : start + BATCH] for start in range(0, 96, BATCH)
    ]
    assert [position for positions, _ in batches for position in positions] == list(range(96))


def test_three_workers_get_every_sample_of_a_batch_of_eight(shards: list[ShardRef]) -> None:
    # Steps 2 to 11 are 40 blocks: 13 rounds and one block, for which the stream needs one more round.
    stop = 12 * BATCH
    stream = training_stream(
        shards,
        decode_numbers(),
        SECTION,
        SMALLEST,
        seed=7,
        start=2 * BATCH,
        stop=stop + 2 * 2,
        rows_per_block=2,
    )
    by_rank = consume_in_parallel(stream, 3)
    items = endless_sequence(shards, 0, stop)
    for rank, blocks in enumerate(by_rank):
        expected = np.concatenate(
            [worker_positions(step, BATCH, 3, rank, 2, first_step=2) for step in range(2, 12)]
        )
        positions = np.concatenate([block["position"] for block in blocks])[: len(expected)]
        numbers = np.concatenate([block["number"] for block in blocks])[: len(expected)]
        assert positions.tolist() == expected.tolist()
        assert [f"i{number:02d}" for number in numbers] == [items[position] for position in expected]


# test_kills.py also covers this, a hundred times.
@pytest.mark.slow
def test_start_in_the_middle_continues_with_the_next_sample(shards: list[ShardRef]) -> None:
    batches = global_batches(shards, 2, 40, 96)
    assert [position for positions, _ in batches for position in positions] == list(range(40, 96))
    assert [item for _, items in batches for item in items] == endless_sequence(shards, 0, 96)[40:]


# test_kills.py also reads with two decoders.
@pytest.mark.slow
def test_parallel_reading_and_decoding_preserve_the_order(shards: list[ShardRef]) -> None:
    batches = global_batches(shards, 2, 0, 96, Concurrency(decoders=2, readers=3))
    assert [item for _, items in batches for item in items] == endless_sequence(shards, 0, 96)


def with_damage(shards: list[ShardRef], number: int, data: bytes | None, folder: Path) -> list[ShardRef]:
    """The shards, one of them replaced by a file with other bytes, or missing (None)."""
    path = folder / f"{number:05d}.tar"
    shutil.copy(Path(shards[number].uri).with_name("items.parquet"), folder)
    if data is not None:
        path.write_bytes(data)
    damaged = dataclasses.replace(shards[number], uri=str(path))
    return [*shards[:number], damaged, *shards[number + 1 :]]


def test_truncated_shard_loses_only_its_samples_and_moves_no_other(
    shards: list[ShardRef], tmp_path: Path
) -> None:
    complete = Path(shards[2].uri).read_bytes()
    cut = list(read_shard(shards[2]))[11].image_offset + 3  # the last four samples of the third shard
    items = [
        item
        for _, items in global_batches(with_damage(shards, 2, complete[:cut], tmp_path), 2, 0, 96)
        for item in items
    ]
    lost = {f"i{number}" for number in range(41, 45)}
    assert items == ["i-1" if item in lost else item for item in endless_sequence(shards, 0, 96)]


def test_missing_shard_loses_only_its_samples_and_moves_no_other(
    shards: list[ShardRef], tmp_path: Path
) -> None:
    items = [
        item
        for _, items in global_batches(with_damage(shards, 1, None, tmp_path), 1, 48, 96)
        for item in items
    ]
    lost = {f"i{number}" for number in range(15, 30)}
    assert items == ["i-1" if item in lost else item for item in endless_sequence(shards, 0, 96)[48:]]


# test_kills.py kills a hundred processes, test_train.py a training worker.
@pytest.mark.slow
def test_killed_decoder_loses_and_repeats_no_sample(shards: list[ShardRef], tmp_path: Path) -> None:
    def decode(block: pa.Table) -> Any:
        positions = block.column("stream_position").to_pylist()
        killed = tmp_path / "killed"
        if 40 in positions and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return decode_numbers()(block)

    stream = training_stream(shards, decode, SECTION, SMALLEST, seed=7, start=0, stop=96, rows_per_block=8)
    numbers = [row["number"] for row in stream.iter_rows()]
    assert (tmp_path / "killed").exists()
    assert [f"i{number:02d}" for number in numbers] == endless_sequence(shards, 0, 96)


# Half a gigabyte through the object store.
@pytest.mark.slow
def test_large_photos_never_fill_the_object_store(tmp_path: Path) -> None:
    # 288 photos of 1 MiB each, decoded to a quarter: without backpressure more than the store can hold.
    noise = np.random.default_rng(7)
    items = [Item(f"i{n:02d}", "cup", noise.bytes(1 << 20)) for n in range(96)]
    large = write_shards(tmp_path, items, 24)
    section = SECTION.model_copy(update={"object_store_megabytes": 48, "block_megabytes": 4})

    def decode(block: pa.Table) -> Any:
        return {"number": np.arange(len(block)), "image": np.zeros((len(block), 1 << 18), np.uint8)}

    rows, most_used = 0, 0
    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    stream = training_stream(large, decode, section, SMALLEST, seed=7, start=0, stop=288, rows_per_block=4)
    for batch in stream.iter_batches(batch_size=None):
        rows += len(batch["number"])
        store = get_memory_info_reply(state).store_stats
        most_used = max(most_used, store.object_store_bytes_used)
    assert rows == 288
    assert store.spilled_bytes_total == 0
    assert most_used < 160 << 20, most_used  # Ray's limit is soft: blocks in flight come on top


def test_embedding_stream_has_each_item_once_in_blocks_of_one_shard(shards: list[ShardRef]) -> None:
    def drop_photos(block: pa.Table) -> pa.Table:
        return block.drop_columns(["image"])

    blocks: list[Any] = list(
        embedding_stream(shards, drop_photos, SECTION, SMALLEST).iter_batches(
            batch_size=None, batch_format="pyarrow"
        )
    )
    assert [set(block.column("shard").to_pylist()) for block in blocks] == [{shard.uri} for shard in shards]
    assert [len(block) for block in blocks] == [15, 15, 15, 5]
    items = [item_id for block in blocks for item_id in block.column("item_id").to_pylist()]
    assert items == [item.item_id for shard in shards for item in read_shard(shard)]
    assert sorted(items) == [f"i{number:02d}" for number in range(NUM_ITEMS)]
