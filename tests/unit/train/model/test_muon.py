"""Muon compared with torch's own implementation, and the properties of orthogonalised updates."""

from __future__ import annotations

import pytest
import torch

from raysys.train.model.muon import Muon, orthogonalise


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(32, 32), (48, 16), (16, 48)])
def test_singular_values_are_close_to_1(shape: tuple[int, int]) -> None:
    # Between 1 and 0.1 before: a value of a thousandth of the norm needs more than five iterations.
    u, s, v = torch.linalg.svd(noise(4, *shape), full_matrices=False)
    values = torch.linalg.svdvals(orthogonalise(u * torch.linspace(1.0, 0.1, s.shape[1]) @ v))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3


def test_singular_vectors_do_not_change() -> None:
    # For a matrix u s v^T the result is about u v^T: the same vectors, other singular values.
    matrix = noise(1, 24, 16)
    u, _, v = torch.linalg.svd(matrix[0], full_matrices=False)
    values = u.T @ orthogonalise(matrix)[0] @ v.T
    assert float((values - torch.diag(values.diagonal())).abs().max()) < 1e-4


def test_result_does_not_depend_on_the_scale_of_the_gradient() -> None:
    matrices = noise(2, 8, 12)
    torch.testing.assert_close(orthogonalise(matrices), orthogonalise(1000 * matrices), rtol=1e-4, atol=1e-4)


def test_stack_of_matrices_equals_single_matrices() -> None:
    matrices = noise(3, 8, 12)
    one_by_one = torch.cat([orthogonalise(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonalise(matrices), one_by_one, rtol=1e-5, atol=1e-6)


def test_steps_equal_those_of_torch_within_bfloat16_rounding() -> None:
    initial = {shape: noise(*shape) for shape in ((32, 16), (16, 32), (16, 16))}
    ours, theirs = ([torch.nn.Parameter(matrix.clone()) for matrix in initial.values()] for _ in range(2))
    optimizers = [
        Muon(ours, lr=0.02, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="original"),
    ]
    for step in range(4):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = noise(*one.shape, seed=10 + step)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, before in zip(ours, theirs, initial.values(), strict=True):
        change, difference = (one - before).detach().norm(), (one - other).detach().norm()
        # bfloat16 has 8 significant bits; five iterations of three products each change the last few bits.
        assert (difference / change).item() < 0.02


def test_first_step_by_hand() -> None:
    # A gradient with orthogonal columns becomes a multiple of itself; 8 x 2 is scaled by sqrt(4).
    gradient = torch.zeros(8, 2)
    gradient[0, 0] = gradient[1, 1] = 3.0
    parameter = torch.nn.Parameter(torch.ones(8, 2))
    parameter.grad = gradient
    Muon([parameter], lr=0.1, weight_decay=0.5).step()
    value = float(orthogonalise(gradient[None])[0, 0, 0])
    assert float(parameter[5, 0].detach()) == pytest.approx(1.0 - 0.1 * 0.5)
    assert float(parameter[0, 0].detach()) == pytest.approx(0.95 - 0.1 * 2.0 * value, abs=1e-6)


def test_matrix_without_a_gradient_does_not_change() -> None:
    unchanged, updated = torch.nn.Parameter(noise(4, 4)), torch.nn.Parameter(noise(4, 4))
    updated.grad = noise(4, 4, seed=2)
    before = unchanged.detach().clone()
    Muon([unchanged, updated], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(unchanged, before)
