"""Rows that are no samples: they make a worker's share of a batch as large as any other's.

Workers meet in every step with equally many rows, of shapes that stay. Padding is black, without captions,
and of no group: like a sample that was skipped it weighs nothing, but no ledger counts it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raysys.records import GROUP_KEYS, STREAM_POSITION

NO_SAMPLE = -1  # the stream position of padding


def padded(batch: Mapping[str, Tensor], num_rows: int, rank: int) -> dict[str, Tensor]:
    """The batch of worker `rank` with rows behind it, so that there are `num_rows`."""
    missing = num_rows - len(batch[STREAM_POSITION])
    if not missing:
        return dict(batch)
    padding = {name: rows.new_zeros(missing, *rows.shape[1:]) for name, rows in batch.items()}
    padding[STREAM_POSITION] -= 1
    # Not a group's, nor a sample's: those are from 0 on, and just below it.
    first = torch.iinfo(torch.int64).min + rank * num_rows
    padding[GROUP_KEYS] += torch.arange(first, first + missing, device=padding[GROUP_KEYS].device)
    return {name: torch.cat([rows, padding[name]]) for name, rows in batch.items()}
