"""Retrieval on held-out pairs: does a photo find its title among the others?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from raysys import storage
from raysys.encoder.preprocess import (
    ImagePreprocessing,
    TextPreprocessing,
    photo_pixels,
    to_tokens,
)
from raysys.encoder.siglip import image_features, normalise, text_features
from raysys.encoder.tokenizer import load_tokenizer
from raysys.stream.decode import caption_keys
from raysys.stream.shard import ShardRef, read_shard

_BATCH = 64


def retrieval(
    model: Any,
    tokenizer_uri: str,
    shards: Sequence[ShardRef],
    image: ImagePreprocessing,
    text: TextPreprocessing,
    num_items: int,
) -> dict[str, float]:
    """R@1, R@5 and R@10 from photo to title over the first `num_items` pairs.

    A title equal to the photo's own is right, too: listings repeat.
    """
    pairs = [
        stored.item
        for stored in itertools.islice((s for shard in shards for s in read_shard(shard)), num_items)
    ]
    if not pairs:
        return {}
    with storage.readable_folder(tokenizer_uri) as folder:
        tokens = to_tokens(load_tokenizer(folder), [item.title for item in pairs], text)
    pixels = np.stack([photo_pixels(item.image, image) for item in pairs])
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        images = _unit(lambda rows: image_features(model, normalise(rows, image)), pixels, model.device)
        titles = _unit(lambda rows: text_features(model, rows), tokens, model.device)
    model.train(was_training)
    keys = torch.from_numpy(caption_keys([item.title for item in pairs], text))
    return {f"r@{k}": recall_at(k, images @ titles.T, keys) for k in (1, 5, 10)}


def recall_at(k: int, scores: torch.Tensor, keys: torch.Tensor) -> float:
    """Share of rows whose k best columns hold one with the row's own key."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return float((keys[best] == keys[:, None]).any(dim=1).float().mean())


def _unit(features: Any, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    parts = [features(part.to(device)).float() for part in torch.from_numpy(rows).split(_BATCH)]
    return torch.nn.functional.normalize(torch.cat(parts), dim=-1).cpu()
