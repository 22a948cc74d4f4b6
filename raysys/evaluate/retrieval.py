"""Retrieval on held-out pairs: the rank of a photo's own title among all titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from raysys import storage
from raysys.encoder.bundle import preprocessing_of
from raysys.encoder.hub import load_tokenizer
from raysys.encoder.preprocess import photo_pixels
from raysys.encoder.siglip import image_vectors, text_vectors
from raysys.encoder.text import caption_keys, to_tokens


class PairEmbeddings(NamedTuple):
    """L2-normalised vectors of photos and their titles, and keys that are equal for equal titles."""

    photos: Float[Tensor, "n d"]
    titles: Float[Tensor, "n d"]
    title_keys: Int64[Tensor, " n"]


def embed_pairs(
    model: Any, encoder_uri: str, photos: Sequence[bytes], titles: Sequence[str]
) -> PairEmbeddings:
    """Embed pairs with `model` on its device, with the preprocessing of the bundle at `encoder_uri`."""
    image, text = preprocessing_of(encoder_uri)
    with storage.readable_folder(encoder_uri) as folder:
        tokens = to_tokens(load_tokenizer(folder), titles, text)
    pixels = np.stack([photo_pixels(photo, image) for photo in photos])
    return PairEmbeddings(
        image_vectors(model, pixels, image),
        text_vectors(model, tokens),
        torch.from_numpy(caption_keys(titles, text)),
    )


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
