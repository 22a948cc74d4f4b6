"""Low-rank updates beside frozen matrices (Hu et al. 2021), by peft; in a bundle they are merged.

`W x` becomes `W x + alpha / rank * B A x`, where only A and B are trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from raysys.config.schema import LoraConfig
from raysys.errors import InputError

_BASE, _A, _B = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def add_updates(model: Any, how: LoraConfig) -> None:
    """Give the layers of both towers their updates, which start at 0, and freeze all else but scale and bias.

    Raises: InputError if peft is not installed, or if no layer has one of the names.
    """
    try:
        import peft
    except ImportError as error:
        raise InputError(
            "train.lora: needs peft, which is not installed; pip install peft, or set train.lora=null"
        ) from error
    # Inside the layers alone: torch's attention of the pooling head reads its weights past any update.
    names = rf".*\.layers\.\d+\..*\b({'|'.join(how.target_modules)})"
    settings = peft.LoraConfig(r=how.rank, lora_alpha=how.alpha, target_modules=names)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # every worker draws the same ones
            peft.inject_adapter_in_model(settings, model)
    except ValueError as error:
        raise InputError(
            f"train.lora.target_modules: {', '.join(how.target_modules)}: peft cannot update these "
            f"({str(error)[:200]}); "
            "name linear layers, as q_proj, k_proj, v_proj, out_proj, fc1 or fc2"
        ) from error
    for number in (model.logit_scale, model.logit_bias):
        number.requires_grad_(True)


def merged(state: dict[str, Tensor], how: LoraConfig) -> dict[str, Tensor]:
    """A model's state with its updates added in, under the names of a checkpoint."""
    plain = {name.replace(_BASE, "."): value for name, value in state.items() if ".lora_" not in name}
    for name in [name for name in state if name.endswith(_A)]:
        layer = name.removesuffix(_A)
        update = state[layer + _B] @ state[name]
        plain[f"{layer}.weight"] = plain[f"{layer}.weight"] + how.alpha / how.rank * update
    return plain
