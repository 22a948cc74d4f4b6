"""Both towers as the loss needs them: photos and captions in, unit vectors out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.siglip import image_features, normalise, text_features


class Embedded(NamedTuple):
    """Unit vectors of photos and of their captions, and the loss's scale and bias; or what they feel."""

    images: Float[Tensor, "b d"]
    captions: Float[Tensor, "b kinds d"]
    scale: Float[Tensor, ""]
    bias: Float[Tensor, ""]


class TwoTowers(torch.nn.Module):
    """A SigLIP model as the loss needs it; one forward, so that DDP sees every parameter used."""

    def __init__(self, model: Any, image: ImagePreprocessing) -> None:
        super().__init__()
        self.model = model
        self._image = image

    def forward(self, pixels: UInt8[Tensor, "b h w 3"], tokens: Int64[Tensor, "b kinds length"]) -> Embedded:
        """Everything that the loss needs, in float32."""
        images = image_features(self.model, normalise(pixels, self._image))
        return Embedded(
            torch.nn.functional.normalize(images.float(), dim=-1),
            torch.nn.functional.normalize(self._captions(tokens).float(), dim=-1),
            self.model.logit_scale.exp().squeeze(),
            self.model.logit_bias.squeeze(),
        )

    def _captions(self, tokens: Int64[Tensor, "b kinds length"]) -> Float[Tensor, "b kinds d"]:
        if tokens.shape[1] == 1:  # titles alone rarely repeat, and fixed shapes compile
            return text_features(self.model, tokens[:, 0])[:, None]
        distinct, places = tokens.flatten(0, 1).unique(dim=0, return_inverse=True)
        captions: Tensor = text_features(self.model, distinct)[places]
        return captions.view(*tokens.shape[:2], -1)
