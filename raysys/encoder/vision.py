"""Any Hugging Face image model as a baseline encoder; its vectors have an embedding space of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float32
from numpy import ndarray

from raysys.encoder.hub import load, require_reachable, silence_transformers
from raysys.encoder.preprocess import ImageBytes, decode_image
from raysys.errors import MissingError


class VisionEncoder:
    """The pooled features of an image model as unit vectors.

    Raises: MissingError if the weights cannot be loaded from the hub id or the path.
    """

    def __init__(self, source: str) -> None:
        silence_transformers()
        require_reachable(source)
        try:
            self._processor: Any = load(
                source, lambda: transformers.AutoImageProcessor.from_pretrained(source, backend="pil")
            )
            self._model: Any = load(source, lambda: transformers.AutoModel.from_pretrained(source)).eval()
        except (OSError, ValueError) as error:
            raise MissingError(
                f"{source}: weights not reachable here ({str(error).splitlines()[0][:120]})"
            ) from error

    @torch.inference_mode()
    def embed_photos(self, photos: Sequence[ImageBytes], batch_size: int = 64) -> Float32[ndarray, "n d"]:
        """Unit vectors of encoded photos; decodes one batch at a time.

        Raises: UnreadableImage.
        """
        parts = []
        for start in range(0, len(photos), batch_size):
            images = [decode_image(photo) for photo in photos[start : start + batch_size]]
            features = self._model(**self._processor(images=images, return_tensors="pt")).pooler_output
            parts.append(torch.nn.functional.normalize(features, dim=-1).numpy())
        return np.concatenate(parts).astype(np.float32)
