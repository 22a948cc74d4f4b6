"""Rows of the global batch, and which of their images and captions belong together.

Listings repeat: the same thing is listed again, and unlike things have the same title. Another listing's
caption is then no real negative, though the published loss counts it as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from raysys.config.schema import FalseNegativesConfig

NO_CAPTION = 0  # the key of a caption that is not there


@dataclass(frozen=True)
class Pairs:
    """Some rows of the global batch: an image and its caption each, as vectors of length one."""

    images: Float[Tensor, "b d"]
    captions: Float[Tensor, "b d"]
    keys: Int64[Tensor, " b"]
    """Equal for equal captions; NO_CAPTION where there is none."""
    groups: Int64[Tensor, " b"]
    """Equal for listings of the same thing."""
    rows: Int64[Tensor, " b"]
    """The place in the global batch."""
    key_counts: Int64[Tensor, " b"]
    """Rows of the global batch with this key."""
    group_counts: Int64[Tensor, " b"]
    """Rows of the global batch of this group."""

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, size: int) -> Iterator[tuple[slice, Pairs]]:
        """The rows in chunks of `size`, the last one perhaps smaller, and where each stands."""
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
    """A worker's rows, which begin at `first_row` of the global batch; `all_` are those of every worker."""
    rows = torch.arange(first_row, first_row + len(keys), device=keys.device)
    here = slice(first_row, first_row + len(keys))
    return Pairs(images, captions, keys, groups, rows, _counts(all_keys)[here], _counts(all_groups)[here])


def targets(
    left: Pairs, right: Pairs, how: FalseNegativesConfig
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Labels (1 or -1) and weights of the images of `left` against the captions of `right`.

    Equal captions, `merged`, count as one that belongs to all their images: each of its m columns has
    weight 1/m. What is masked weighs nothing, as does a caption that is not there. Another caption of the
    same group (of g rows), made positive, weighs 1/g; that of a photo that looks alike, 1.
    """
    is_own = left.rows[:, None] == right.rows[None, :]
    is_equal = left.keys[:, None] == right.keys[None, :]
    is_merged = how.equal_titles == "merged"
    weights = _of_both(left, right, right.key_counts if is_merged else None)
    is_positive = is_equal if is_merged else is_own
    if how.equal_titles == "masked":
        weights.masked_fill_(is_equal & ~is_own, 0.0)
    if how.same_group != "negative":
        is_related = (left.groups[:, None] == right.groups[None, :]) & ~is_positive
        if how.same_group == "positive":
            weights = torch.where(is_related, _of_both(left, right, right.group_counts), weights)
            is_positive = is_positive | is_related
        else:
            weights.masked_fill_(is_related, 0.0)
    if how.photo_cosine_threshold is not None:
        looks_alike = (left.images @ right.images.T >= how.photo_cosine_threshold) & ~is_positive
        if how.similar_photos_are == "positive":
            weights = torch.where(looks_alike, _of_both(left, right), weights)
            is_positive = is_positive | looks_alike
        else:
            weights.masked_fill_(looks_alike, 0.0)
    return 2.0 * is_positive.to(weights) - 1.0, weights


def _of_both(left: Pairs, right: Pairs, counts: Int64[Tensor, " n"] | None = None) -> Float[Tensor, "b n"]:
    """1, or 1 over the count of the right row, where the left row is a sample and the right one a caption."""
    here, there = ((side.keys != NO_CAPTION).to(left.images) for side in (left, right))
    return here[:, None] * (there if counts is None else there / counts)[None, :]


def _counts(values: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """How often the value of each row occurs."""
    _, places, counts = values.unique(return_inverse=True, return_counts=True)
    of_rows: Tensor = counts[places]
    return of_rows
