"""Retrieval on held-out pairs: does a photo find its title among the others?"""

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


class Pairs(NamedTuple):
    """Unit vectors of photos and of their titles, and a key that equal titles share."""

    photos: Float[Tensor, "n d"]
    titles: Float[Tensor, "n d"]
    keys: Int64[Tensor, " n"]


def embed_pairs(model: Any, encoder_uri: str, photos: Sequence[bytes], titles: Sequence[str]) -> Pairs:
    """Photos and titles by a model on its device, prepared as the bundle at `encoder_uri` says."""
    image, text = preprocessing_of(encoder_uri)
    with storage.readable_folder(encoder_uri) as folder:
        tokens = to_tokens(load_tokenizer(folder), titles, text)
    pixels = np.stack([photo_pixels(photo, image) for photo in photos])
    return Pairs(
        image_vectors(model, pixels, image),
        text_vectors(model, tokens),
        torch.from_numpy(caption_keys(titles, text)),
    )


def recalls(pairs: Pairs) -> dict[str, float]:
    """R@1, R@5 and R@10 from photo to title.

    A title equal to the photo's own is right, too: listings repeat.
    """
    scores = pairs.photos @ pairs.titles.T
    return {f"r@{k}": recall_at(k, scores, pairs.keys) for k in (1, 5, 10)}


def recall_at(k: int, scores: Float[Tensor, "rows n"], keys: Int64[Tensor, " n"]) -> float:
    """Share of rows whose k best columns hold one with the row's own key."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return float((keys[best] == keys[:, None]).any(dim=1).double().mean())
