"""Norms of the weights and of an update."""

from __future__ import annotations

import pytest
import torch

from raysys.train.metrics.weight_change import WeightChange


def test_norm_and_ratio_cover_the_trained_weights() -> None:
    model = torch.nn.Linear(2, 1)
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 3.0]]))
        model.bias.copy_(torch.tensor([6.0]))  # sqrt(4 + 9 + 36) = 7
        change = WeightChange(torch.nn.Sequential(model, frozen))
        model.weight.add_(torch.tensor([[0.3, 0.4]]))  # an update of norm 0.5
    values = change.metrics()
    assert values["update_ratio"] == pytest.approx(0.5 / 7)
    assert values["weight_norm"] == pytest.approx((2.3**2 + 3.4**2 + 36) ** 0.5)


def test_ratio_of_a_large_matrix_is_close_to_the_exact_one() -> None:
    torch.manual_seed(1)
    model = torch.nn.Linear(700, 301, bias=False)
    update = 0.01 * torch.randn(301, 700)
    exact = float(update.norm() / model.weight.detach().norm())
    with torch.no_grad():
        change = WeightChange(model)
        model.weight.add_(update)
    assert change.metrics()["update_ratio"] == pytest.approx(exact, rel=0.05)
