"""What a run skipped is written down once, and too much of it stops the run with the shard's name."""

from __future__ import annotations

import numpy as np
import pytest

from raysys.errors import DamagedData
from raysys.shards.reader import ShardRef
from raysys.stream.skipped import Skipped, StreamLedger, read_skipped, reasons_line, require_few_skipped

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
    StreamLedger(SHARDS, run, 1, 0).add(batch(12, [0, 6]))
    StreamLedger(SHARDS, run, 0, 0).add(batch(4, [2, 0, 0], shard=1))
    assert read_skipped(run) == [
        Skipped(4, 0, "b.tar", 0, "missing"),
        Skipped(13, 1, "a.tar", 1, "unreadable_photo"),
    ]


def test_restarted_worker_knows_what_it_skipped_and_counts_it_once(tmp_path: object) -> None:
    run = str(tmp_path)
    StreamLedger(SHARDS, run, 0, 0).add(batch(4, [2, 3]))
    again = StreamLedger(SHARDS, run, 0, 4)
    again.add(batch(4, [2, 3]))
    assert (again.num_skipped(0, 10), again.num_skipped(5, 10)) == (2, 1)
    assert len(read_skipped(run)) == 2


def test_other_number_of_workers_counts_every_skipped_sample_once(tmp_path: object) -> None:
    run = str(tmp_path)
    for rank, first in enumerate([0, 2, 4, 6]):  # two steps of two workers, who skip all
        StreamLedger(SHARDS, run, rank % 2, 0).add(batch(first, [2, 3]))
    alone, newcomer = StreamLedger(SHARDS, run, 0, 4), StreamLedger(SHARDS, run, 2, 4)  # after the first step
    alone.add(batch(4, [2, 3]))
    newcomer.add(batch(6, [2, 3]))
    assert (alone.num_skipped(0, 8), newcomer.num_skipped(0, 8)) == (6, 2)
    assert [entry.position for entry in read_skipped(run)] == list(range(8))


def test_padding_is_not_counted(tmp_path: object) -> None:
    # Its code is 0, like that of a sample that could be used.
    ledger = StreamLedger(SHARDS, str(tmp_path), 0, 0)
    ledger.add({**batch(0, [2, 0]), "stream_position": np.array([0, -1])})
    assert [entry.position for entry in read_skipped(str(tmp_path))] == [0]


def test_good_batch_writes_nothing(tmp_path: object) -> None:
    StreamLedger(SHARDS, str(tmp_path), 0, 0).add(batch(0, [0, 0]))
    assert read_skipped(str(tmp_path)) == []


def skipped(epoch: int, shard: str, count: int) -> list[Skipped]:
    return [Skipped(10 * epoch + n, epoch, shard, n, "missing") for n in range(count)]


def test_too_many_in_one_epoch_name_the_worst_shard() -> None:
    found = [*skipped(0, "b.tar", 1), *skipped(1, "a.tar", 1), *skipped(1, "b.tar", 2)]
    with pytest.raises(DamagedData) as caught:
        require_few_skipped(found, SHARDS, 0.2)
    assert str(caught.value) == (
        "b.tar: 2 of the 3 samples that epoch 1 had to skip (3 missing; 10 in all); "
        "see `raysys verify`, pack again, or raise stream.max_bad_fraction"
    )


def test_few_in_every_epoch_are_let_pass() -> None:
    require_few_skipped([*skipped(0, "a.tar", 2), *skipped(1, "a.tar", 2)], SHARDS, 0.2)


def test_reasons_are_counted() -> None:
    found = [*skipped(0, "a.tar", 2), Skipped(9, 0, "a.tar", 9, "no_photo")]
    assert reasons_line(found) == "2 missing, 1 no_photo"
