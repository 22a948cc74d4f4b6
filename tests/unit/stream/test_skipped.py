"""Skipped samples are recorded once, and too many stop the run with the name of the shard."""

from __future__ import annotations

import numpy as np
import pytest

from raysys.errors import DamagedData
from raysys.shards.reader import ShardRef
from raysys.stream.skipped import (
    SkippedSample,
    SkippedSamples,
    check_skipped_fraction,
    format_reasons,
    read_skipped,
)

SHARDS = [ShardRef("a.tar", "train", 6, 6144), ShardRef("b.tar", "train", 4, 4096)]


def batch(first: int, codes: list[int], shard: int = 0) -> dict[str, np.ndarray]:
    rows = np.arange(len(codes))
    return {
        "skipped": np.array(codes),
        "stream_position": first + rows,
        "epoch": (first + rows) // 10,
        "shard_number": np.full(len(codes), shard),
        "sample_number": rows,
    }


def test_skipped_samples_of_all_workers_are_read_back_by_position(tmp_path: object) -> None:
    run = str(tmp_path)
    SkippedSamples(SHARDS, run, 1, 0).add(batch(12, [0, 6]))
    SkippedSamples(SHARDS, run, 0, 0).add(batch(4, [2, 0, 0], shard=1))
    assert read_skipped(run) == [
        SkippedSample(4, 0, "b.tar", 0, "missing"),
        SkippedSample(13, 1, "a.tar", 1, "unreadable_photo"),
    ]


def test_restarted_worker_counts_a_sample_that_it_skips_again_once(tmp_path: object) -> None:
    run = str(tmp_path)
    SkippedSamples(SHARDS, run, 0, 0).add(batch(4, [2, 3]))
    restarted = SkippedSamples(SHARDS, run, 0, 4)
    restarted.add(batch(4, [2, 3]))
    assert (restarted.num_skipped(0, 10), restarted.num_skipped(5, 10)) == (2, 1)
    assert len(read_skipped(run)) == 2


def test_another_number_of_workers_counts_every_skipped_sample_once(tmp_path: object) -> None:
    run = str(tmp_path)
    for rank, first in enumerate([0, 2, 4, 6]):  # two steps of two workers; all samples are skipped
        SkippedSamples(SHARDS, run, rank % 2, 0).add(batch(first, [2, 3]))
    # Continued after the first step; rank 2 is new.
    rank_0, rank_2 = SkippedSamples(SHARDS, run, 0, 4), SkippedSamples(SHARDS, run, 2, 4)
    rank_0.add(batch(4, [2, 3]))
    rank_2.add(batch(6, [2, 3]))
    assert (rank_0.num_skipped(0, 8), rank_2.num_skipped(0, 8)) == (6, 2)
    assert [entry.position for entry in read_skipped(run)] == list(range(8))


def test_padding_is_not_counted(tmp_path: object) -> None:
    # The code of padding is 0, as for a usable sample.
    samples = SkippedSamples(SHARDS, str(tmp_path), 0, 0)
    samples.add({**batch(0, [2, 0]), "stream_position": np.array([0, -1])})
    assert [entry.position for entry in read_skipped(str(tmp_path))] == [0]


def test_good_batch_writes_nothing(tmp_path: object) -> None:
    SkippedSamples(SHARDS, str(tmp_path), 0, 0).add(batch(0, [0, 0]))
    assert read_skipped(str(tmp_path)) == []


def skipped(epoch: int, shard: str, count: int) -> list[SkippedSample]:
    return [SkippedSample(10 * epoch + n, epoch, shard, n, "missing") for n in range(count)]


def test_too_many_in_one_epoch_name_the_shard_with_the_most() -> None:
    entries = [*skipped(0, "b.tar", 1), *skipped(1, "a.tar", 1), *skipped(1, "b.tar", 2)]
    with pytest.raises(DamagedData) as caught:
        check_skipped_fraction(entries, SHARDS, 0.2)
    assert str(caught.value) == (
        "b.tar: 2 of the 3 samples skipped in epoch 1 (3 missing; 10 samples in all); "
        "see `raysys verify`, pack again, or raise stream.max_bad_fraction"
    )


def test_allowed_fraction_in_every_epoch_passes() -> None:
    check_skipped_fraction([*skipped(0, "a.tar", 2), *skipped(1, "a.tar", 2)], SHARDS, 0.2)


def test_reasons_are_counted() -> None:
    entries = [*skipped(0, "a.tar", 2), SkippedSample(9, 0, "a.tar", 9, "no_photo")]
    assert format_reasons(entries) == "2 missing, 1 no_photo"
