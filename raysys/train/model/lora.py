"""Low-rank updates beside frozen matrices (Hu et al. 2021), with peft; merged into the weights of a bundle.

`W x` becomes `W x + alpha / rank * B A x`, and only A and B are trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from raysys.config.schema import LoraConfig
from raysys.errors import InputError

_BASE, _A, _B = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def add_lora(model: Any, config: LoraConfig) -> None:
    """Add low-rank updates, which start at 0, to the layers of both towers.

    Freezes all other parameters except the scale and the bias of the loss.
    Raises: InputError if peft is not installed, or if no layer has one of the configured names.
    """
    try:
        import peft
    except ImportError as error:
        raise InputError(
            "train.lora: needs peft, which is not installed; pip install peft, or set train.lora=null"
        ) from error
    # Only inside the layers: the attention of the pooling head would ignore an update of its weights.
    names = rf".*\.layers\.\d+\..*\b({'|'.join(config.target_modules)})"
    settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=names)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same initial values on every worker
            peft.inject_adapter_in_model(settings, model)
    except ValueError as error:
        raise InputError(
            f"train.lora.target_modules: {', '.join(config.target_modules)}: peft cannot update these "
            f"({str(error)[:200]}); name linear layers such as q_proj, k_proj, v_proj, out_proj, fc1 or fc2"
        ) from error
    for parameter in (model.logit_scale, model.logit_bias):
        parameter.requires_grad_(True)


def merge_lora(state: dict[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """A model's state dict with its low-rank updates merged, under the names of a checkpoint."""
    merged = {name.replace(_BASE, "."): value for name, value in state.items() if ".lora_" not in name}
    for name in [name for name in state if name.endswith(_A)]:
        layer = name.removesuffix(_A)
        update = state[layer + _B] @ state[name]
        merged[f"{layer}.weight"] = merged[f"{layer}.weight"] + config.alpha / config.rank * update
    return merged
