"""The norm of the trained weights, and the size of a step's update relative to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_SAMPLE_SIZE = 4096  # elements of a tensor: a copy of all weights would double their memory


class WeightChange:
    """Samples the weights before an update; `metrics`, called after it on all workers, compares them."""

    @torch.no_grad()
    def __init__(self, model: Any) -> None:
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._before = self._sample()

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """`weight_norm` of all trained weights, and `update_ratio`: norm of the update / norm of the weights.

        The ratio is estimated from 4,096 evenly spaced elements of each tensor (of this worker's shard).
        """
        norm = torch.nn.utils.get_total_norm(self._weights)
        weight_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        update = torch.linalg.vector_norm(self._sample() - self._before)
        before = torch.linalg.vector_norm(self._before).clamp(min=1e-12)
        values = torch.stack([weight_norm.float(), update / before]).tolist()
        return dict(zip(("weight_norm", "update_ratio"), values, strict=True))

    def _sample(self) -> Tensor:
        shards = [getattr(weight, "to_local", lambda own=weight: own)() for weight in self._weights]
        return torch.cat(
            [shard.detach().flatten()[:: max(1, shard.numel() // _SAMPLE_SIZE)].float() for shard in shards]
        )
