"""Rows of a global batch for tests of the loss."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from raysys.config.schema import FalseNegativesConfig
from raysys.train.loss import Pairs, local_pairs

EqualTitles: TypeAlias = Literal["merged", "masked", "negative"]
PUBLISHED = FalseNegativesConfig(equal_titles="negative", same_group="negative")


def keys(*values: int) -> Tensor:
    return torch.tensor(values)


def unit_rows(count: int, seed: int, dimensions: int = 5) -> Tensor:
    """Random unit vectors in float64."""
    rows = torch.randn(count, dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


def pairs_of(
    images: Tensor,
    captions: Tensor,
    caption_keys: Tensor,
    groups: Tensor | None = None,
    part: slice | None = None,
) -> Pairs:
    """The rows `part` of a global batch, all rows by default; without `groups` each row has its own."""
    groups = -1 - torch.arange(len(caption_keys)) if groups is None else groups
    part = part or slice(0, len(caption_keys))
    return local_pairs(
        images[part],
        captions[part],
        caption_keys[part],
        groups[part],
        first_row=part.start,
        all_keys=caption_keys,
        all_groups=groups,
    )
