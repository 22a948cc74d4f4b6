"""Retrieval on held-out pairs: the rank of a photo's own title among all titles."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor


class PairEmbeddings(NamedTuple):
    """L2-normalised vectors of photos and their titles, and keys that are equal for equal titles."""

    photos: Float[Tensor, "n d"]
    titles: Float[Tensor, "n d"]
    title_keys: Int64[Tensor, " n"]


def recalls(pairs: PairEmbeddings) -> dict[str, float]:
    """R@1, R@5 and R@10 from photo to title.

    A title of another item that equals the photo's own counts as correct, because titles repeat.
    """
    scores = pairs.photos @ pairs.titles.T
    return {f"r@{k}": recall_at(k, scores, pairs.title_keys) for k in (1, 5, 10)}


def recall_at(k: int, scores: Float[Tensor, "rows n"], keys: Int64[Tensor, " n"]) -> float:
    """Share of rows that have a column with their own key among the k columns of highest score."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return float((keys[best] == keys[:, None]).any(dim=1).double().mean())
