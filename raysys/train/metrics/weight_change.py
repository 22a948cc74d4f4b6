"""How large the trained weights are, and how far a step moves them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_SAMPLED = 4096  # of a tensor: a copy of all weights would cost their memory once more


class WeightChange:
    """Made before an update; `figures` tells of it afterwards, on all workers at once."""

    @torch.no_grad()
    def __init__(self, model: Any) -> None:
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._before = self._sample()

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """`weight_norm` of all that is trained, and `update_ratio`: the update's norm by that of the weights.

        The ratio is estimated from 4,096 evenly spaced elements of each tensor (of this worker's part of it).
        """
        norm = torch.nn.utils.get_total_norm(self._weights)
        whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        moved = torch.linalg.vector_norm(self._sample() - self._before)
        held = torch.linalg.vector_norm(self._before).clamp(min=1e-12)
        weight_norm, ratio = torch.stack([whole.float(), moved / held]).tolist()
        return {"weight_norm": weight_norm, "update_ratio": ratio}

    def _sample(self) -> Tensor:
        parts = [getattr(weight, "to_local", lambda own=weight: own)() for weight in self._weights]
        return torch.cat(
            [part.detach().flatten()[:: max(1, part.numel() // _SAMPLED)].float() for part in parts]
        )
