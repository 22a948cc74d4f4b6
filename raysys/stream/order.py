"""The order of training: one endless sequence of samples, a pure function of (seed, shard sizes).

An epoch visits the shards in a random order; a *window* of a few shards is read at a time and its
samples are shuffled. Epochs follow each other without a seam, so the samples left over at the end of
one epoch fill the first batch of the next. A position in the sequence is one number, and the plan from
it on does not depend on how many workers consume it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

_MAX_BLOCK_ROWS = 128.0
_ELASTIC_BLOCKS = 8


@dataclass(frozen=True)
class Window:
    """Some shards of one epoch, whose samples are shuffled together; `skip` and `take` cut that order.

    Its first sample has the number `position` in the endless sequence.
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
    """The windows that hold the samples `start` to `stop` of the sequence, in order.

    Raises: ValueError if there are no samples to take.
    """
    per_epoch = sum(shard_sizes)
    if per_epoch == 0:
        raise ValueError("no samples in any shard")
    epoch, position = divmod(start, per_epoch)
    position = start - position  # where the epoch begins in the sequence
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


def block_rows(
    batch_size: int, workers: int, *, is_elastic: bool, sample_bytes: float, block_bytes: int
) -> int:
    """Rows of a block: a worker's share of a batch is a whole number of blocks.

    Of these sizes the one nearest to what `block_bytes` hold of samples of `sample_bytes` (a mean), but at
    most 128 rows. Ray's own work is by the block, however small; large blocks fill the object store.
    An elastic run may have fewer workers than `workers`, too; then a share is at least 8 blocks (or all its
    rows, if those are fewer), so that what `share_rows` adds is less than an eighth of the batch.
    """
    near = min(max(block_bytes / sample_bytes, 1.0), _MAX_BLOCK_ROWS)
    share = batch_size // workers
    least = min(_ELASTIC_BLOCKS, share) if is_elastic else 1
    divisors = [rows for rows in range(1, share // least + 1) if share % rows == 0]
    return min(divisors, key=lambda rows: abs(math.log(rows / near)))


def worker_positions(
    step: int, batch_size: int, workers: int, rank: int, rows_per_block: int, *, first_step: int
) -> Int64[ndarray, " rows"]:
    """Which samples of the sequence a worker gets in a step, counted from 0.

    Blocks are dealt to the workers in turn, from the first block of `first_step` on, with which this group
    of workers began. Where these do not divide a batch, a worker has a block more in some steps than in
    others.
    """
    per_step = batch_size // rows_per_block
    blocks = np.arange(per_step) + (step - first_step) * per_step
    own = blocks[blocks % workers == rank]
    positions = first_step * batch_size + own[:, None] * rows_per_block + np.arange(rows_per_block)
    return np.asarray(positions.ravel(), dtype=np.int64)


def share_rows(batch_size: int, workers: int, rows_per_block: int) -> int:
    """The most rows of a batch that a worker can get; all workers are padded to as many."""
    return math.ceil(batch_size / rows_per_block / workers) * rows_per_block


def rows_of(window: Window, size: int) -> Int64[ndarray, " take"]:
    """Which of the window's `size` samples to take, in which order."""
    order = np.random.default_rng(window.order_seed).permutation(size)
    return order[window.skip : window.skip + window.take]
