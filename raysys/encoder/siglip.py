"""SigLIP as an encoder: from photos or titles to unit vectors of one embedding space."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float, Float32, Int64, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from raysys.encoder.forward import Forward, PendingVectors
from raysys.encoder.hub import (
    checkpoint_error,
    load,
    load_tokenizer,
    require_reachable,
    silence_transformers,
)
from raysys.encoder.preprocess import ImageBytes, ImagePreprocessing, photo_pixels
from raysys.encoder.projection import Projection
from raysys.encoder.text import TextPreprocessing, to_tokens
from raysys.errors import InputError


class SiglipEncoder:
    """A checkpoint with its preprocessing and projection, for inference.

    Vectors are float32 rows of length 1 in the embedding space `space_id`. With `compiled`, torch.compile
    makes code for each size of a batch of photos: give it batches of one size.
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
        compiled: bool = False,
    ) -> None:
        self.space_id = space_id
        self.text = text
        self.image = image_preprocessing_of(folder)
        self.tokenizer = load_tokenizer(folder)
        self.projection = projection
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._model = load_model(folder).to(device=torch.device(device), dtype=dtype).eval()
        if compiled:
            self._model.vision_model.compile(dynamic=False)
        self._mean, self._std = (values.to(self._model.device) for values in mean_and_std(self.image))
        self._forward_photos = Forward(self._photo_features, self._model.device)
        self._forward_titles = Forward(functools.partial(text_features, self._model), self._model.device)

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return self.projection.dimensions if self.projection else dimensions_of(self._model.config)

    def embed_pixels(
        self, pixels: UInt8[ndarray, "b h w 3"], batch_size: int = 64
    ) -> Float32[ndarray, "b d"]:
        """Unit vectors of photos prepared by `photo_pixels`."""
        if not len(pixels):
            return np.empty((0, self.dimensions), np.float32)
        return self._project(self._forward_photos(pixels, batch_size))

    def warm_up(self, batch_size: int, *, compiled: bool = False) -> None:
        """Compute a photo and a title, so that none is the first, and on a GPU prepare for small batches.

        There, batches of up to `batch_size` photos or titles are computed by CUDA graphs from now on. With
        `compiled`, torch.compile makes the code of both towers for them.
        """
        if compiled:
            for tower in (self._model.vision_model, self._model.text_model):
                tower.compile(dynamic=True)
        blank = np.zeros((1, *self.image.shape), self.image.dtype)
        self._forward_photos.capture(blank, batch_size)
        self._forward_titles.capture(to_tokens(self.tokenizer, ["a"], self.text), batch_size)

    def start_pixels(self, pixels: UInt8[ndarray, "b h w 3"]) -> PendingVectors:
        """Begin to compute one batch of photos prepared by `photo_pixels`."""
        pending = self._forward_photos.start(pixels)
        return lambda: self._project(pending())

    def embed_photos(
        self, photos: Sequence[ImageBytes | Image.Image], batch_size: int = 64
    ) -> Float32[ndarray, "b d"]:
        """Unit vectors of encoded photos or opened images; decodes one batch at a time.

        Raises: UnreadableImage.
        """
        parts = [np.empty((0, self.dimensions), np.float32)]
        for start in range(0, len(photos), batch_size):
            batch = [photo_pixels(photo, self.image) for photo in photos[start : start + batch_size]]
            parts.append(self.embed_pixels(np.stack(batch), batch_size))
        return np.concatenate(parts)

    def embed_titles(self, titles: Sequence[str], batch_size: int = 64) -> Float32[ndarray, "b d"]:
        """Unit vectors of titles or search queries."""
        if not titles:
            return np.empty((0, self.dimensions), np.float32)
        tokens = to_tokens(self.tokenizer, titles, self.text)
        return self._project(self._forward_titles(tokens, batch_size))

    def _photo_features(self, pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        # Mean and standard deviation are on the device: a copy for each batch would make the host wait.
        return image_features(self._model, standardise(pixels, self._mean, self._std).to(self._model.dtype))

    def _project(self, unit: Float32[ndarray, "b d"]) -> Float32[ndarray, "b k"]:
        return self.projection.apply(unit) if self.projection else unit


def normalise(
    pixels: UInt8[Tensor, "b h w 3"], preprocessing: ImagePreprocessing
) -> Float[Tensor, "b 3 h w"]:
    """Pixels scaled to [0, 1], then standardised by the checkpoint's mean and standard deviation."""
    mean, std = mean_and_std(preprocessing)
    return standardise(pixels, mean.to(pixels.device), std.to(pixels.device))


def mean_and_std(preprocessing: ImagePreprocessing) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
    """Mean and standard deviation of each channel, for `standardise`."""
    return torch.tensor(preprocessing.mean).view(3, 1, 1), torch.tensor(preprocessing.std).view(3, 1, 1)


def standardise(
    pixels: UInt8[Tensor, "b h w 3"], mean: Float[Tensor, "3 1 1"], std: Float[Tensor, "3 1 1"]
) -> Float[Tensor, "b 3 h w"]:
    """`normalise` with mean and standard deviation on the device of the pixels."""
    return (pixels.permute(0, 3, 1, 2).float() * (1.0 / 255.0) - mean) / std


def image_features(model: Any, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
    """Image embeddings before normalisation."""
    return _pooled(model.get_image_features(pixel_values=pixels))


def text_features(model: Any, tokens: Int64[Tensor, "b length"]) -> Float[Tensor, "b d"]:
    """Title embeddings before normalisation; without an attention mask, as SigLIP was trained."""
    return _pooled(model.get_text_features(input_ids=tokens))


def load_config(source: str | Path, revision: str | None = None) -> Any:
    """The configuration of a SigLIP checkpoint in a folder or at a hub id.

    Raises: MissingError if the hub is not reachable, InputError if the checkpoint cannot be loaded or has
    another architecture.
    """
    require_reachable(str(source), revision)
    try:
        config = load(source, lambda: transformers.AutoConfig.from_pretrained(str(source), revision=revision))
    except (OSError, ValueError, KeyError) as error:
        raise checkpoint_error(source, error) from error
    if config.model_type != "siglip" or not hasattr(config, "text_config"):
        # Fixed-resolution SigLIP 2 checkpoints have model_type `siglip` too.
        raise InputError(
            f"{source}: a SigLIP checkpoint with two towers is required, got model_type {config.model_type!r}"
        )
    return config


def load_model(source: str | Path, revision: str | None = None) -> Any:
    """A SigLIP model in float32 from a folder or a hub id. Raises: as `load_config`."""
    silence_transformers()
    load_config(source, revision)

    def from_pretrained() -> Any:
        return transformers.AutoModel.from_pretrained(str(source), revision=revision, dtype=torch.float32)

    try:
        return load(source, from_pretrained)
    except (OSError, ValueError) as error:
        raise checkpoint_error(source, error) from error


def image_preprocessing_of(source: str | Path, revision: str | None = None) -> ImagePreprocessing:
    """Input size, mean, standard deviation and resampling filter of the checkpoint's own processor."""
    silence_transformers()
    # Always the PIL backend: torchvision resizes differently, and may not be installed.
    processor = transformers.AutoImageProcessor.from_pretrained(str(source), revision=revision, backend="pil")
    height, width = int(processor.size["height"]), int(processor.size["width"])
    if height != width:
        raise InputError(f"{source}: a square input size is required, got {height} x {width}")
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
    """Length of the vectors of a model with this configuration, before any projection."""
    return int(config.vision_config.hidden_size)


def _pooled(output: Any) -> Tensor:
    # transformers 5 returns an output object here, transformers 4 the tensor itself.
    pooled: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return pooled
