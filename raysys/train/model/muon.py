"""Muon for the matrices of a transformer (Jordan et al. 2024) on a CPU: in float32, many matrices at a time.

The update and the state dict are those of `torch.optim.Muon`, which computes in bfloat16 and one matrix after
another. GPUs use it; on a CPU a model of 1.4 M parameters takes 1.6 s a step, and with this version 30 ms.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


class CpuMuon(torch.optim.Muon):
    """`torch.optim.Muon` with its defaults, in an implementation for CPUs; a state dict fits both."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no line search here
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for matrices in by_shape.values():
                self._update(matrices, group)

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        updates = orthogonalise(
            torch.stack([self._add_momentum(matrix, group["momentum"]) for matrix in matrices])
        )
        rows, columns = matrices[0].shape
        learning_rate = group["lr"] * max(1.0, rows / columns) ** 0.5
        for matrix, update in zip(matrices, updates, strict=True):
            matrix.mul_(1.0 - group["lr"] * group["weight_decay"])
            matrix.add_(update, alpha=-learning_rate)

    def _add_momentum(self, matrix: Tensor, momentum: float) -> Tensor:
        assert matrix.grad is not None
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        state["momentum_buffer"].lerp_(matrix.grad, 1.0 - momentum)
        return matrix.grad.lerp(state["momentum_buffer"], momentum)


def orthogonalise(matrices: Float[Tensor, "n rows columns"]) -> Float[Tensor, "n rows columns"]:
    """The matrices with their singular values moved close to 1 (Newton-Schulz iteration)."""
    a, b, c = _NEWTON_SCHULZ
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if is_tall else x
    return result
