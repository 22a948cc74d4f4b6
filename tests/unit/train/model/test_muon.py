"""Muon compared with torch's own implementation, and the properties of orthogonalised updates."""

from __future__ import annotations

import copy

import pytest
import torch

from raysys.train.model.muon import CpuMuon, orthogonalise


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
        CpuMuon(ours, lr=0.02, weight_decay=0.1),
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


@pytest.mark.parametrize("to_gpu", [True, False])
def test_checkpoint_moves_between_cpu_and_gpu(to_gpu: bool) -> None:
    # torch's own class, which a GPU uses, and ours: a state dict of one continues in the other.
    classes = (CpuMuon, torch.optim.Muon) if to_gpu else (torch.optim.Muon, CpuMuon)
    parameters = [torch.nn.Parameter(noise(8, 12)) for _ in classes]
    optimizers = [cls([p], lr=0.02, weight_decay=0.1) for cls, p in zip(classes, parameters, strict=True)]
    parameters[0].grad = noise(8, 12, seed=2)
    optimizers[0].step()
    state = copy.deepcopy(optimizers[0].state_dict())
    optimizers[1].load_state_dict(state)
    loaded = optimizers[1].state_dict()
    assert loaded["param_groups"] == state["param_groups"]
    assert torch.equal(loaded["state"][0]["momentum_buffer"], state["state"][0]["momentum_buffer"])
    parameters[1].data.copy_(parameters[0].data)
    before = parameters[0].detach().clone()
    for parameter, optimizer in zip(parameters, optimizers, strict=True):
        parameter.grad = noise(8, 12, seed=3)
        optimizer.step()
    change, difference = (parameters[0] - before).norm(), (parameters[0] - parameters[1]).norm()
    assert float((difference / change).detach()) < 0.02


def test_first_step_by_hand() -> None:
    # A gradient with orthogonal columns becomes a multiple of itself; 8 x 2 is scaled by sqrt(4).
    gradient = torch.zeros(8, 2)
    gradient[0, 0] = gradient[1, 1] = 3.0
    parameter = torch.nn.Parameter(torch.ones(8, 2))
    parameter.grad = gradient
    CpuMuon([parameter], lr=0.1, weight_decay=0.5).step()
    value = float(orthogonalise(gradient[None])[0, 0, 0])
    assert float(parameter[5, 0].detach()) == pytest.approx(1.0 - 0.1 * 0.5)
    assert float(parameter[0, 0].detach()) == pytest.approx(0.95 - 0.1 * 2.0 * value, abs=1e-6)


def test_matrix_without_a_gradient_does_not_change() -> None:
    unchanged, updated = torch.nn.Parameter(noise(4, 4)), torch.nn.Parameter(noise(4, 4))
    updated.grad = noise(4, 4, seed=2)
    before = unchanged.detach().clone()
    CpuMuon([unchanged, updated], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(unchanged, before)
