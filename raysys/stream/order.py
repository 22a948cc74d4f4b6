"""The order of training: one endless sequence of samples, a pure function of (seed, shard sizes).

An epoch visits the shards in random order; a *window* of a few shards is read at a time and its samples are
shuffled. Epochs follow each other without a gap: the last samples of one epoch and the first of the next may
share a batch. A position in the sequence is one number, and the plan from there on does not depend on the
number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

_MAX_BLOCK_ROWS = 128.0
_MIN_ELASTIC_BLOCKS = 8


@dataclass(frozen=True)
class Window:
    """Some shards of one epoch whose samples are shuffled together.

    `skip` and `take` select a part of the shuffled order; its first sample has the number `position` in the
    endless sequence.
    """

    epoch: int
    position: int
    shards: tuple[int, ...]
    order_seed: tuple[int, int, int]
    skip: int
    take: int


def windows(
    shard_sizes: Sequence[int], *, seed: int, shards_per_window: int, start: int, stop: int
) -> Iterator[Window]:
    """The windows of the samples `start` to `stop` of the sequence, in order.

    Raises: ValueError if the shards are empty.
    """
    per_epoch = sum(shard_sizes)
    if per_epoch == 0:
        raise ValueError("no samples in any shard")
    epoch = start // per_epoch
    position = epoch * per_epoch  # of the epoch's first sample
    while position < stop:
        shards = np.random.default_rng([seed, epoch]).permutation(len(shard_sizes))
        for number, first in enumerate(range(0, len(shards), shards_per_window)):
            chosen = tuple(int(shard) for shard in shards[first : first + shards_per_window])
            size = sum(shard_sizes[shard] for shard in chosen)
            skip, end = max(0, start - position), min(size, stop - position)
            if skip < end:
                yield Window(epoch, position + skip, chosen, (seed, epoch, number), skip, end - skip)
            position += size
        epoch += 1


def choose_rows_per_block(
    batch_size: int, workers: int, *, is_elastic: bool, sample_bytes: float, block_bytes: int
) -> int:
    """Rows per block, a divisor of a worker's share of the batch.

    Chooses the divisor nearest to `block_bytes` / `sample_bytes` (a mean) or to 128, whichever is smaller:
    Ray's overhead is per block, but large blocks fill the object store.
    An elastic run may continue with fewer workers. Its share has at least 8 blocks (or one row per block), so
    that the padding to `share_rows` is less than an eighth of the batch.
    """
    preferred = min(max(block_bytes / sample_bytes, 1.0), _MAX_BLOCK_ROWS)
    share = batch_size // workers
    min_blocks = min(_MIN_ELASTIC_BLOCKS, share) if is_elastic else 1
    divisors = [rows for rows in range(1, share // min_blocks + 1) if share % rows == 0]
    return min(divisors, key=lambda rows: abs(math.log(rows / preferred)))


def worker_positions(
    step: int, batch_size: int, workers: int, rank: int, rows_per_block: int, *, first_step: int
) -> Int64[ndarray, " rows"]:
    """Positions in the sequence of the samples that a worker gets in a step (counted from 0).

    Blocks are dealt to the workers in turn, beginning with the first block of `first_step`, the first step of
    this group of workers. If the number of workers does not divide the blocks of a batch, a worker gets one
    more block in some steps than in others.
    """
    blocks_per_step = batch_size // rows_per_block
    blocks = np.arange(blocks_per_step) + (step - first_step) * blocks_per_step
    rank_blocks = blocks[blocks % workers == rank]
    positions = first_step * batch_size + rank_blocks[:, None] * rows_per_block + np.arange(rows_per_block)
    return np.asarray(positions.ravel(), dtype=np.int64)


def share_rows(batch_size: int, workers: int, rows_per_block: int) -> int:
    """The maximum number of rows of a batch that a worker can get; all workers are padded to it."""
    return math.ceil(batch_size / rows_per_block / workers) * rows_per_block


def rows_of(window: Window, size: int) -> Int64[ndarray, " take"]:
    """The rows of the window's samples to take, in order; `size` is the number of samples in its shards."""
    order = np.random.default_rng(window.order_seed).permutation(size)
    return order[window.skip : window.skip + window.take]
