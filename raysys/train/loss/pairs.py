"""Rows of the global batch, and which images and captions are positive pairs.

Listings repeat: one thing is listed several times, and different things share a title. The caption of another
listing can then be a false negative: the published loss counts it as a negative although it fits the photo.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from raysys.config.schema import FalseNegativesConfig

NO_CAPTION = 0  # the key of a missing caption


@dataclass(frozen=True)
class Pairs:
    """Some rows of the global batch: an image and its caption each, as L2-normalised vectors."""

    images: Float[Tensor, "b d"]
    captions: Float[Tensor, "b d"]
    keys: Int64[Tensor, " b"]
    """Equal for equal captions; NO_CAPTION for a missing one."""
    groups: Int64[Tensor, " b"]
    """Equal for listings of the same thing."""
    rows: Int64[Tensor, " b"]
    """Positions in the global batch."""
    key_counts: Int64[Tensor, " b"]
    """Number of rows of the global batch with the same key."""
    group_counts: Int64[Tensor, " b"]
    """Number of rows of the global batch in the same group."""

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, size: int) -> Iterator[tuple[slice, Pairs]]:
        """Chunks of `size` rows, the last one possibly smaller, each with its slice of these rows."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield part, Pairs(*(getattr(self, field.name)[part] for field in fields(self)))


def local_pairs(
    images: Float[Tensor, "b d"],
    captions: Float[Tensor, "b d"],
    keys: Int64[Tensor, " b"],
    groups: Int64[Tensor, " b"],
    *,
    first_row: int,
    all_keys: Int64[Tensor, " n"],
    all_groups: Int64[Tensor, " n"],
) -> Pairs:
    """One worker's rows, which start at `first_row` of the global batch.

    `all_keys` and `all_groups` are those of all workers, in order of rank.
    """
    rows = torch.arange(first_row, first_row + len(keys), device=keys.device)
    local = slice(first_row, first_row + len(keys))
    return Pairs(images, captions, keys, groups, rows, _counts(all_keys)[local], _counts(all_groups)[local])


def labels_and_weights(
    left: Pairs, right: Pairs, policy: FalseNegativesConfig
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Labels (1 or -1) and weights of the images of `left` against the captions of `right`.

    A masked pair has weight 0, and so has a missing caption. With `equal_titles: merged`, m equal captions
    are positives of all their images, with weight 1/m each. With `same_group: positive`, another caption of
    a group of g rows has weight 1/g. With `similar_photos_are: positive`, the caption of a similar photo has
    weight 1.
    """
    is_same_row = left.rows[:, None] == right.rows[None, :]
    is_equal = left.keys[:, None] == right.keys[None, :]
    is_merged = policy.equal_titles == "merged"
    weights = _present_weights(left, right, right.key_counts if is_merged else None)
    is_positive = is_equal if is_merged else is_same_row
    if policy.equal_titles == "masked":
        weights.masked_fill_(is_equal & ~is_same_row, 0.0)
    if policy.same_group != "negative":
        is_related = (left.groups[:, None] == right.groups[None, :]) & ~is_positive
        if policy.same_group == "positive":
            weights = torch.where(is_related, _present_weights(left, right, right.group_counts), weights)
            is_positive = is_positive | is_related
        else:
            weights.masked_fill_(is_related, 0.0)
    if policy.photo_cosine_threshold is not None:
        is_similar = (left.images @ right.images.T >= policy.photo_cosine_threshold) & ~is_positive
        if policy.similar_photos_are == "positive":
            weights = torch.where(is_similar, _present_weights(left, right), weights)
            is_positive = is_positive | is_similar
        else:
            weights.masked_fill_(is_similar, 0.0)
    return 2.0 * is_positive.to(weights) - 1.0, weights


def _present_weights(
    left: Pairs, right: Pairs, counts: Int64[Tensor, " n"] | None = None
) -> Float[Tensor, "b n"]:
    """0 where the left sample or the right caption is missing; else 1, or 1 / `counts` of the right row."""
    is_left, is_right = ((side.keys != NO_CAPTION).to(left.images) for side in (left, right))
    return is_left[:, None] * (is_right if counts is None else is_right / counts)[None, :]


def _counts(values: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """How often the value of each row occurs. Not by `unique`, whose size the host would have to wait for."""
    values = values.contiguous()
    ascending = values.sort().values
    after, before = (torch.searchsorted(ascending, values, right=is_right) for is_right in (True, False))
    return after - before
