"""A moving average of the weights: smoother than the last step's, and no slower to train."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter

from raysys.train.model.parallel import local_parts


class Ema:
    """Averages of parameters that are trained, each of which forgets by `decay` a step; they start as these.

    Of a cut parameter a worker holds the average of its part.
    """

    def __init__(self, named: Iterable[tuple[str, Parameter]], decay: float) -> None:
        trained = {name: parameter for name, parameter in named if parameter.requires_grad}
        self.averages: dict[str, Tensor] = {name: p.detach().clone() for name, p in trained.items()}
        self._decay = decay
        self._averages = local_parts(self.averages.values())
        self._parameters = local_parts(parameter.detach() for parameter in trained.values())

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        torch._foreach_lerp_(self._averages, self._parameters, 1.0 - self._decay)
