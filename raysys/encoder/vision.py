"""Any image model of Hugging Face as a baseline encoder; it never shares a space with another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float32
from numpy import ndarray
from PIL import Image

from raysys.encoder.hub import require_reachable
from raysys.encoder.tokenizer import quiet_transformers
from raysys.errors import MissingError


class VisionEncoder:
    """An image model's pooled features as unit vectors.

    Raises: MissingError if the weights cannot be had from the hub id or the path.
    """

    def __init__(self, source: str) -> None:
        quiet_transformers()
        require_reachable(source)
        try:
            self._processor: Any = transformers.AutoImageProcessor.from_pretrained(source, backend="pil")
            self._model: Any = transformers.AutoModel.from_pretrained(source).eval()
        except (OSError, ValueError) as error:
            raise MissingError(
                f"{source}: weights not reachable here ({str(error).splitlines()[0][:120]})"
            ) from error

    def embed_pictures(
        self, pictures: Sequence[Image.Image], batch_size: int = 64
    ) -> Float32[ndarray, "n d"]:
        """Unit vectors of decoded RGB pictures."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(pictures), batch_size):
                inputs = self._processor(
                    images=list(pictures[start : start + batch_size]), return_tensors="pt"
                )
                parts.append(
                    torch.nn.functional.normalize(self._model(**inputs).pooler_output, dim=-1).numpy()
                )
        return np.concatenate(parts).astype(np.float32)
