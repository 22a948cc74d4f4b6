"""Any Hugging Face image model as an encoder of photos; its vectors have an embedding space of their own."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float, Float32
from numpy import ndarray
from PIL import Image
from torch import Tensor

from raysys.encoder.forward import Forward, PendingVectors
from raysys.encoder.hub import load, require_reachable, silence_transformers
from raysys.encoder.preprocess import ImageBytes, decode_image
from raysys.errors import InputError, MissingError

# Of a model's configuration: they describe how it was saved.
_IGNORED_CONFIG_KEYS = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


@dataclass(frozen=True)
class ProcessorPreparation:
    """Photos as the model's own processor prepares them: float32 (3, height, width), standardised."""

    source: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def __call__(self, photo: ImageBytes | Image.Image) -> Float32[ndarray, "3 h w"]:
        """The input of the model for an encoded photo. Raises: UnreadableImage."""
        image = photo if isinstance(photo, Image.Image) else decode_image(photo)
        return _prepared(_load_processor(self.source), image)


class VisionEncoder:
    """The pooled features of an image model as unit vectors.

    `compiled`: as for SiglipEncoder.
    Raises: MissingError if the weights cannot be loaded from the hub id or the path, InputError for a model
    without pooled features, or whose processor gives inputs of several sizes.
    """

    def __init__(
        self, source: str, *, device: str = "cpu", precision: str = "fp32", compiled: bool = False
    ) -> None:
        silence_transformers()
        require_reachable(source)
        try:
            processor = _load_processor(source)
            model: Any = load(source, lambda: transformers.AutoModel.from_pretrained(source)).eval()
        except (OSError, ValueError) as error:
            raise MissingError(
                f"{source}: weights not reachable here ({str(error).splitlines()[0][:120]}); give a hub id "
                "or a folder with an image model and its processor"
            ) from error
        self.space_id = _space_id_of(model, processor)
        self.image = ProcessorPreparation(source, _shape_of(source, processor))
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._model = model.to(device=torch.device(device), dtype=dtype)
        self._forward = Forward(self._features, self._model.device)
        self.dimensions = self.embed_pixels(np.zeros((1, *self.image.shape), np.float32)).shape[1]
        """Length of the vectors."""
        if compiled:
            getattr(self._model, "vision_model", self._model).compile(dynamic=False)

    def embed_photos(self, photos: Sequence[ImageBytes], batch_size: int = 64) -> Float32[ndarray, "n d"]:
        """Unit vectors of encoded photos; decodes one batch at a time.

        Raises: UnreadableImage.
        """
        parts = [np.empty((0, self.dimensions), np.float32)]
        for start in range(0, len(photos), batch_size):
            batch = [self.image(photo) for photo in photos[start : start + batch_size]]
            parts.append(self.embed_pixels(np.stack(batch), batch_size))
        return np.concatenate(parts)

    def embed_pixels(
        self, pixels: Float32[ndarray, "n 3 h w"], batch_size: int = 64
    ) -> Float32[ndarray, "n d"]:
        """Unit vectors of at least one photo prepared by `image`."""
        return self._forward(pixels, batch_size)

    def start_pixels(self, pixels: Float32[ndarray, "b 3 h w"]) -> PendingVectors:
        """Begin to compute one batch of photos prepared by `image`."""
        return self._forward.start(pixels)

    def _features(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """The image embeddings of a model with a text tower, or the pooled output of an image model."""
        has_text_tower = hasattr(self._model, "get_image_features")
        pixels = pixels.to(self._model.dtype)
        output = (self._model.get_image_features if has_text_tower else self._model)(pixel_values=pixels)
        pooled = output if isinstance(output, Tensor) else getattr(output, "pooler_output", None)
        if pooled is None:
            raise InputError(f"{self.image.source}: the model has no pooled image features; choose another")
        return pooled.flatten(1)


@functools.lru_cache(maxsize=2)
def _load_processor(source: str) -> Any:
    silence_transformers()
    return load(source, lambda: transformers.AutoImageProcessor.from_pretrained(source, backend="pil"))


def _prepared(processor: Any, image: Image.Image) -> Float32[ndarray, "3 h w"]:
    return np.asarray(processor(images=[image], return_tensors="np")["pixel_values"][0], np.float32)


def _shape_of(source: str, processor: Any) -> tuple[int, ...]:
    """The shape of a prepared photo. Raises: InputError if it depends on the photo."""
    shapes = {_prepared(processor, Image.new("RGB", size)).shape for size in ((320, 240), (240, 400))}
    if len(shapes) > 1:
        raise InputError(
            f"{source}: its processor gives inputs of several sizes ({', '.join(map(str, sorted(shapes)))}); "
            "choose a model with a fixed input size"
        )
    return shapes.pop()


def _space_id_of(model: Any, processor: Any) -> str:
    """A hash of everything that affects a vector: weights, configuration, processor; 64 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    description = {"model": _plain(model.config.to_dict()), "image": _plain(processor.to_dict())}
    digest.update(json.dumps(description, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _plain(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if key not in _IGNORED_CONFIG_KEYS
    }
