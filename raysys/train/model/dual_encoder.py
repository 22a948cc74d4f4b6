"""The image tower and the text tower as one module: photos and captions in, unit vectors out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import Parameter
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from raysys.encoder.float32_attention import FLOAT32_ATTENTION
from raysys.encoder.patch_dropout import dropped_patches
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.siglip import image_features, mean_and_std, standardise, text_features

_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)


class EmbeddedBatch(NamedTuple):
    """Unit vectors of photos and captions with the loss's scale and bias; or the gradients of these four."""

    images: Float[Tensor, "b d"]
    captions: Float[Tensor, "b kinds d"]
    scale: Float[Tensor, ""]
    bias: Float[Tensor, ""]


class DualEncoder(torch.nn.Module):
    """A SigLIP model with a single forward pass for both towers, so that DDP sees every parameter used.

    With `precision` bf16 the towers run under autocast: parameters, gradients and layer norms are float32,
    matrix products bfloat16. One process, DDP and FSDP2 therefore compute the same.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: Any, image: ImagePreprocessing, precision: str = "fp32", *, patch_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.model = model
        self._patch_dropout = patch_dropout
        self._precision, self._is_compiled = precision, False
        if precision == "bf16" and model.device.type == "cpu":
            model.set_attn_implementation(FLOAT32_ATTENTION)
        # Not in the state dict. On the device of the model, so that no step copies them there.
        for name, values in zip(("mean", "std"), mean_and_std(image), strict=True):
            self.register_buffer(name, values.to(model.device), persistent=False)

    def forward(
        self,
        pixels: UInt8[Tensor, "b h w 3"],
        tokens: Int64[Tensor, "b kinds length"],
        seeds: Int64[Tensor, " b"] | None = None,
    ) -> EmbeddedBatch:
        """The inputs of the loss, in float32. With `seeds` of the photos, patches are dropped."""
        is_bf16 = self._precision == "bf16"
        with (
            torch.autocast(pixels.device.type, torch.bfloat16) if is_bf16 else nullcontext(),
            dropped_patches(self.model.vision_model, seeds, self._patch_dropout),
        ):
            images = image_features(self.model, standardise(pixels, self.mean, self.std))
            captions = self._caption_features(tokens)
        return EmbeddedBatch(
            torch.nn.functional.normalize(images.float(), dim=-1),
            torch.nn.functional.normalize(captions.float(), dim=-1),
            self.model.logit_scale.squeeze().exp(),
            self.model.logit_bias.squeeze().clone(),  # FSDP warns of views
        )

    def compile_towers(self, backend: str = "inductor") -> None:
        """Compile each tower at its first call. The names in the state dict do not change.

        With dropped patches, and on a CPU, only layers are compiled, and on a CPU only those of the image
        tower: the number of distinct captions, which the text tower embeds there, changes at every step.
        """
        if self.model.device.type == "cpu":
            if self._precision == "bf16":  # compiled, it is faster than the fused one
                self.model.vision_model.set_attn_implementation("eager")
            for layer in self.model.vision_model.encoder.layers:
                layer.compile(backend=backend, dynamic=False)
            return
        if self._patch_dropout:
            self.compile_layers(backend)
            return
        self._is_compiled = True
        for tower in (self.model.vision_model, self.model.text_model):
            tower.compile(backend=backend, dynamic=False)

    def compile_layers(self, backend: str = "inductor") -> None:
        """Compile each layer separately, for FSDP, which gathers sharded weights between layers."""
        self._is_compiled = True
        for layer in self.layers():
            layer.compile(backend=backend, dynamic=False)

    def checkpoint_activations(self, kind: Literal["selective", "full"]) -> None:
        """Store less of each layer, and compute the rest again in the backward pass.

        `full` stores only the layer's input; `selective` also the results of `_is_stored`.
        """
        options: dict[str, Any] = {}
        if kind == "selective":
            options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _is_stored)
        for layer in self.layers():
            layer.forward = _checkpointed(layer.forward, options)

    def layers(self) -> list[torch.nn.Module]:
        """The transformer layers of both towers."""
        return [*self.model.vision_model.encoder.layers, *self.model.text_model.encoder.layers]

    def loss_parameters(self) -> list[Parameter]:
        """The scale and the bias of the loss, one number each."""
        return [self.model.logit_scale, self.model.logit_bias]

    def _caption_features(self, tokens: Int64[Tensor, "b kinds length"]) -> Float[Tensor, "b kinds d"]:
        if tokens.shape[1] == 1:  # titles alone rarely repeat
            return text_features(self.model, tokens[:, 0])[:, None]
        flat = tokens.flatten(0, 1)
        # Every new number of distinct captions would compile again; on a GPU the host would wait for it.
        if self._is_compiled or tokens.device.type != "cpu":
            return text_features(self.model, flat).view(*tokens.shape[:2], -1)
        distinct, inverse = flat.unique(dim=0, return_inverse=True)
        captions: Tensor = text_features(self.model, distinct)[inverse]
        return captions.view(*tokens.shape[:2], -1)


def _checkpointed(forward: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    """A function, because torch.compile does not look into a partial of `checkpoint` as a layer's forward."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **options, **kwargs)

    return run


def _is_stored(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Store the results of attention and of matrix products, which take almost all of a layer's time.

    The second product of an MLP, which is narrower than its input, is not stored: no gradient needs it.
    """
    is_product = op in _PRODUCTS and args[-1].shape[-1] >= args[-1].shape[-2]
    is_stored = is_product or "_scaled_dot_product" in op.name()
    return CheckpointPolicy.MUST_SAVE if is_stored else CheckpointPolicy.PREFER_RECOMPUTE
