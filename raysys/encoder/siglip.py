"""SigLIP as an encoder: pixels or tokens in, unit vectors of one embedding space out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float, Float32, Int64, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from raysys.encoder.hub import require_reachable
from raysys.encoder.preprocess import (
    ImagePreprocessing,
    TextPreprocessing,
    to_pixels,
    to_tokens,
)
from raysys.encoder.projection import Projection
from raysys.encoder.tokenizer import load_tokenizer, nothing_loads, quiet_transformers
from raysys.errors import InputError


class SiglipEncoder:
    """A loaded checkpoint with its preprocessing and projection; not trained through.

    Vectors come out as float32 rows of length 1, in the space that `space_id` names.
    """

    def __init__(
        self,
        folder: Path,
        *,
        space_id: str,
        text: TextPreprocessing,
        projection: Projection | None = None,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.space_id = space_id
        self.text = text
        self.image = image_preprocessing_of(folder)
        self.tokenizer = load_tokenizer(folder)
        self.projection = projection
        self._device = device
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._model = load_model(folder).to(device=torch.device(device), dtype=dtype).eval()

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return self.projection.dimensions if self.projection else dimensions_of(self._model.config)

    def embed_pixels(
        self, pixels: UInt8[ndarray, "b h w 3"], batch_size: int = 64
    ) -> Float32[ndarray, "b d"]:
        """Unit vectors of photos that `to_pixels` prepared."""
        return self._in_batches(pixels, batch_size, self._image_features)

    def embed_tokens(
        self, tokens: Int64[ndarray, "b length"], batch_size: int = 64
    ) -> Float32[ndarray, "b d"]:
        """Unit vectors of titles that `to_tokens` prepared."""
        return self._in_batches(tokens, batch_size, self._text_features)

    def embed_pictures(self, pictures: list[Image.Image], batch_size: int = 64) -> Float32[ndarray, "b d"]:
        """Unit vectors of decoded RGB pictures."""
        return self.embed_pixels(
            np.stack([to_pixels(picture, self.image) for picture in pictures]), batch_size
        )

    def embed_titles(self, titles: list[str], batch_size: int = 64) -> Float32[ndarray, "b d"]:
        """Unit vectors of titles or search words."""
        return self.embed_tokens(to_tokens(self.tokenizer, titles, self.text), batch_size)

    def _in_batches(self, rows: ndarray, batch_size: int, features: Any) -> Float32[ndarray, "b d"]:
        parts = [np.empty((0, self.dimensions), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(rows), batch_size):
                batch = torch.from_numpy(rows[start : start + batch_size].copy()).to(self._device)
                parts.append(self._finish(features(batch)))
        return np.concatenate(parts)

    def _image_features(self, pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        return image_features(self._model, normalise(pixels, self.image).to(self._model.dtype))

    def _text_features(self, tokens: Int64[Tensor, "b length"]) -> Float[Tensor, "b d"]:
        return text_features(self._model, tokens)

    def _finish(self, features: Float[Tensor, "b d"]) -> Float32[ndarray, "b d"]:
        unit = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
        return self.projection.apply(unit) if self.projection else unit


def normalise(pixels: UInt8[Tensor, "b h w 3"], how: ImagePreprocessing) -> Float[Tensor, "b 3 h w"]:
    """Pixels scaled to [0, 1], then centred and scaled by the checkpoint's mean and standard deviation."""
    mean = torch.tensor(how.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(how.std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.permute(0, 3, 1, 2).float() * (1.0 / 255.0) - mean) / std


def image_features(model: Any, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
    """Image embeddings before normalisation."""
    return _pooled(model.get_image_features(pixel_values=pixels))


def text_features(model: Any, tokens: Int64[Tensor, "b length"]) -> Float[Tensor, "b d"]:
    """Title embeddings before normalisation; no attention mask, as SigLIP was trained."""
    return _pooled(model.get_text_features(input_ids=tokens))


def load_config(source: str | Path, revision: str | None = None) -> Any:
    """The configuration of a SigLIP checkpoint in a folder or at a hub id.

    Raises: InputError if nothing loads from there, or if it is another architecture.
    """
    require_reachable(str(source), revision)
    try:
        config = transformers.AutoConfig.from_pretrained(str(source), revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise nothing_loads(source, error) from error
    if config.model_type != "siglip" or not hasattr(config, "text_config"):
        # Fixed-resolution SigLIP 2 checkpoints call themselves `siglip` too.
        raise InputError(
            f"{source}: a SigLIP checkpoint with both towers is needed, got model_type {config.model_type!r}"
        )
    return config


def load_model(source: str | Path, revision: str | None = None) -> Any:
    """A SigLIP model in float32 from a folder or a hub id; raises as `load_config` does."""
    quiet_transformers()
    load_config(source, revision)
    try:
        return transformers.AutoModel.from_pretrained(str(source), revision=revision, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise nothing_loads(source, error) from error


def image_preprocessing_of(source: str | Path, revision: str | None = None) -> ImagePreprocessing:
    """Size, mean, deviation and filter as the checkpoint's own processor states them."""
    quiet_transformers()
    # The PIL backend everywhere: torchvision resizes differently, and may not be installed.
    processor = transformers.AutoImageProcessor.from_pretrained(str(source), revision=revision, backend="pil")
    height, width = int(processor.size["height"]), int(processor.size["width"])
    if height != width:
        raise InputError(f"{source}: a square input size is needed, got {height} x {width}")
    return ImagePreprocessing(
        size_px=height,
        mean=_three_channels(processor.image_mean),
        std=_three_channels(processor.image_std),
        resample=int(processor.resample),
    )


def _three_channels(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def dimensions_of(config: Any) -> int:
    """Length of the vectors of a model with this configuration."""
    return int(config.vision_config.hidden_size)


def _pooled(output: Any) -> Tensor:
    # transformers 5 returns an output object here, transformers 4 the tensor itself.
    pooled: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return pooled
