"""One endless sequence: every epoch contains every sample once, and any part of it can be planned."""

from __future__ import annotations

import itertools
import random

import pytest

from raysys.stream.order import Window, choose_rows_per_block, rows_of, share_rows, windows, worker_positions

SIZES = (3, 5, 2, 4)  # an epoch has 14 samples
Sample = tuple[int, int]  # shard, row


def sequence(
    start: int, stop: int, *, sizes: tuple[int, ...] = SIZES, seed: int = 7, shards_per_window: int = 2
) -> list[Sample]:
    """The samples from `start` to `stop`, in the order of a reader that follows the windows."""
    samples: list[Sample] = []
    plan = windows(sizes, seed=seed, shards_per_window=shards_per_window, start=start, stop=stop)
    for window in plan:
        assert window.position == start + len(samples)
        stored = [(shard, row) for shard in window.shards for row in range(sizes[shard])]
        samples += [stored[row] for row in rows_of(window, len(stored))]
    return samples


ALL = sorted((shard, row) for shard, size in enumerate(SIZES) for row in range(size))


@pytest.mark.parametrize("shards_per_window", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_every_epoch_contains_every_sample_once(epoch: int, shards_per_window: int) -> None:
    samples = sequence(14 * epoch, 14 * (epoch + 1), shards_per_window=shards_per_window)
    assert sorted(samples) == ALL


def test_any_part_is_the_same_slice_of_the_endless_sequence() -> None:
    three_epochs = sequence(0, 42)
    for start, stop in itertools.combinations(sorted({0, 14, 28, *range(1, 43, 3)}), 2):
        assert sequence(start, stop) == three_epochs[start:stop]


def test_batches_continue_across_the_end_of_an_epoch() -> None:
    batches = [sequence(start, start + 4) for start in range(0, 28, 4)]
    samples = [sample for batch in batches for sample in batch]
    assert sorted(samples[:14]) == ALL
    assert sorted(samples[14:]) == ALL


def test_epochs_and_seeds_have_different_orders() -> None:
    orders = [sequence(0, 14), sequence(14, 28), sequence(28, 42), sequence(0, 14, seed=8)]
    assert len({tuple(order) for order in orders}) == 4


def test_plan_is_a_pure_function() -> None:
    plans = [
        list(windows(SIZES, seed=3, shards_per_window=2, start=5, stop=40)) for _ in range(2)
    ]  # fmt: skip
    assert plans[0] == plans[1]
    assert list(rows_of(plans[0][0], 99)) == list(rows_of(plans[1][0], 99))


def test_windows_are_cut_at_start_and_stop() -> None:
    # Two shards of 2 and a window of both: samples 1, 2, 3 of epoch 0, then 0 and 1 of epoch 1.
    first, second = windows((2, 2), seed=7, shards_per_window=2, start=1, stop=6)
    assert (first.epoch, first.position, first.skip, first.take) == (0, 1, 1, 3)
    assert (second.epoch, second.position, second.skip, second.take) == (1, 4, 0, 2)
    assert sorted(first.shards) == [0, 1]


def test_samples_are_mixed_over_the_shards_of_a_window() -> None:
    samples = sequence(0, 200, sizes=(100, 100), shards_per_window=2)
    from_first_shard = sum(shard == 0 for shard, _ in samples[:100])
    # A uniform draw of 100 out of 200 takes 50 +- 3.5 of each shard.
    assert 35 <= from_first_shard <= 65


def test_empty_shards_are_allowed() -> None:
    assert sorted(sequence(0, 3, sizes=(0, 3, 0), shards_per_window=1)) == [(1, 0), (1, 1), (1, 2)]


def test_empty_range_has_no_windows() -> None:
    assert list(windows(SIZES, seed=7, shards_per_window=2, start=20, stop=20)) == []


def test_skip_and_take_select_a_part_of_the_window_s_order() -> None:
    complete = Window(epoch=0, position=0, shards=(0,), order_seed=(7, 0, 0), skip=0, take=10)
    part = Window(epoch=0, position=4, shards=(0,), order_seed=(7, 0, 0), skip=4, take=3)
    assert list(rows_of(part, 10)) == list(rows_of(complete, 10))[4:7]


def test_shards_without_samples_are_an_error() -> None:
    with pytest.raises(ValueError, match="no samples in any shard"):
        next(windows((0, 0), seed=7, shards_per_window=2, start=0, stop=1))


@pytest.mark.parametrize(
    ("batch_size", "workers", "kilobytes", "rows"),
    [
        (64, 2, 100, 32),
        (4096, 8, 10, 128),  # limited to 128
        (4096, 8, 125, 64),  # 65.5 fit
        (512, 1, 100, 64),  # 81.9 fit
        (6, 2, 10, 3),
        (2 * 127, 2, 10, 127),
        (300, 2, 100, 75),
        (8, 8, 10, 1),
        (4096, 8, 9000, 1),  # a photo larger than a block
    ],
)
def test_block_divides_a_worker_s_share_and_is_near_its_size_in_bytes(
    batch_size: int, workers: int, kilobytes: int, rows: int
) -> None:
    assert rows == choose_rows_per_block(
        batch_size, workers, is_elastic=False, sample_bytes=1024.0 * kilobytes, block_bytes=8 << 20
    )


@pytest.mark.parametrize(
    ("batch_size", "workers", "rows"),
    [
        (4096, 8, 64),  # a share of 512 is 8 blocks of 64
        (4096, 2, 128),  # a share of 2048 is 16 blocks of 128, the maximum
        (32768, 128, 32),
        (300, 2, 15),  # the largest divisor of 150 up to 18
        (24, 2, 1),  # 12 is not a multiple of 8
        (12, 3, 1),  # 4 rows are 4 blocks
    ],
)
def test_block_of_an_elastic_run_is_at_most_an_eighth_of_a_share(
    batch_size: int, workers: int, rows: int
) -> None:
    assert rows == choose_rows_per_block(
        batch_size, workers, is_elastic=True, sample_bytes=1024.0, block_bytes=8 << 20
    )


@pytest.mark.parametrize("batch_size", [240, 256, 4096])
@pytest.mark.parametrize("max_workers", [2, 5, 8])
def test_padding_of_an_elastic_run_is_less_than_an_eighth(batch_size: int, max_workers: int) -> None:
    batch_size = batch_size // max_workers * max_workers
    per_block = choose_rows_per_block(
        batch_size, max_workers, is_elastic=True, sample_bytes=1024.0, block_bytes=8 << 20
    )
    for workers in range(1, max_workers + 1):
        padding = share_rows(batch_size, workers, per_block) * workers - batch_size
        assert 0 <= padding < batch_size / 8


def test_workers_get_blocks_in_turn() -> None:
    # A batch of 12 in blocks of 2: worker 0 gets blocks 0, 3; worker 1 gets 1, 4; worker 2 gets 2, 5.
    assert worker_positions(1, 12, 3, 1, 2, first_step=0).tolist() == [14, 15, 20, 21]
    all_ranks = [p for rank in range(3) for p in worker_positions(1, 12, 3, rank, 2, first_step=0).tolist()]
    assert sorted(all_ranks) == list(range(12, 24))


def test_uneven_shares_differ_by_one_block_and_dealing_continues_across_steps() -> None:
    # A batch of 8 in blocks of 2; three workers start with step 5, at position 40:
    # blocks 0 1 2 3 | 4 5 6 7 | ... go to workers 0 1 2 0 | 1 2 0 1 | ...
    steps = [
        [worker_positions(step, 8, 3, rank, 2, first_step=5).tolist() for rank in range(3)] for step in (5, 6)
    ]
    assert steps[0] == [[40, 41, 46, 47], [42, 43], [44, 45]]
    assert steps[1] == [[52, 53], [48, 49, 54, 55], [50, 51]]
    assert share_rows(8, 3, 2) == 4


@pytest.mark.parametrize("workers", range(1, 9))
@pytest.mark.parametrize(
    ("batch_size", "rows_per_block"), [(16, 1), (15, 1), (17, 1), (27, 3), (45, 5), (64, 8), (56, 7)]
)
def test_every_number_of_workers_gets_every_sample_of_a_step_once(
    workers: int, batch_size: int, rows_per_block: int
) -> None:
    largest = share_rows(batch_size, workers, rows_per_block)
    assert largest - rows_per_block < batch_size / workers <= largest
    dealt = [0] * workers  # Ray deals each block to the worker with the fewest blocks, the lowest rank first
    for step in range(3, 3 + 2 * workers):
        expected: list[list[int]] = [[] for _ in range(workers)]
        for first in range(step * batch_size, (step + 1) * batch_size, rows_per_block):
            next_worker = dealt.index(min(dealt))
            dealt[next_worker] += 1
            expected[next_worker] += range(first, first + rows_per_block)
        shares = [
            worker_positions(step, batch_size, workers, rank, rows_per_block, first_step=3).tolist()
            for rank in range(workers)
        ]
        assert shares == expected
        assert sorted(itertools.chain(*shares)) == list(range(step * batch_size, (step + 1) * batch_size))
        assert max(map(len, shares)) <= largest
        assert min(map(len, shares)) >= max(largest - rows_per_block, rows_per_block)


@pytest.mark.parametrize("seed", range(20))
def test_group_that_changes_its_size_at_any_step_gets_the_complete_sequence_once(seed: int) -> None:
    rng, seen, step = random.Random(seed), list[int](), 0
    while step < 20:
        workers, steps = rng.randint(1, 8), rng.randint(1, 4)
        for now in range(step, step + steps):
            for rank in range(workers):
                seen += worker_positions(now, 24, workers, rank, 3, first_step=step).tolist()
        step += steps
    assert sorted(seen) == list(range(24 * step))
