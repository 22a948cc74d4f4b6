"""`train.patch_dropout`: which patches a photo keeps, and that a step sees only those."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from raysys.train.model.dual_encoder import DualEncoder, kept_patches
from raysys.train.step import backward, train_step
from tests.unit.train.small_model import IMAGE, build_small_model, small_batch, small_section, small_state

SEEDS = torch.arange(6) + 100


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_model(tmp_path_factory.mktemp("start") / "tiny")


def batch_with_seeds() -> dict[str, Tensor]:
    return {**small_batch(), "patch_seeds": SEEDS}


def test_first_random_numbers_are_those_of_splitmix64() -> None:
    # splitmix64 from state 0 returns e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f, f88bb8a8724c81ec:
    # as signed numbers the order is 0, 3, 2, 1.
    assert [kept_patches(torch.tensor([0]), 4, dropout).tolist() for dropout in (0.75, 0.5, 0.25)] == [
        [[0]],
        [[0, 3]],
        [[0, 2, 3]],
    ]


def test_kept_patches_are_distinct_and_all_patches_are_kept_equally_often() -> None:
    seeds = torch.arange(4000) - 1  # -1 is padding
    kept = kept_patches(seeds, 64, 0.5)
    assert kept.shape == (4000, 32)
    assert bool((kept.diff(dim=1) > 0).all())
    counts = torch.bincount(kept.flatten(), minlength=64)
    assert len(counts) == 64
    assert 2000 - 160 < int(counts.min()) <= int(counts.max()) < 2000 + 160  # five standard deviations
    assert torch.equal(kept[7], kept_patches(seeds[7:8], 64, 0.5)[0])
    assert len({tuple(row) for row in kept.tolist()}) == 4000


def test_at_least_one_patch_is_kept() -> None:
    assert kept_patches(SEEDS, 4, 0.99).shape == (6, 1)


def test_a_dropped_patch_does_not_change_the_embedding(start: Path) -> None:
    model = small_state(start, small_section()).model
    towers = DualEncoder(model, IMAGE, patch_dropout=0.5)
    batch = batch_with_seeds()
    side = model.config.vision_config.patch_size
    patches_a_row = 16 // side
    kept = kept_patches(SEEDS, patches_a_row**2, 0.5)
    dropped = next(n for n in range(patches_a_row**2) if n not in kept[0].tolist())

    def embedded(patch: int, seeds: Tensor | None) -> Tensor:
        pixels = batch["pixels"].clone()
        top, left = patch // patches_a_row * side, patch % patches_a_row * side
        pixels[0, top : top + side, left : left + side] = 0
        images: Tensor = towers(pixels, batch["tokens"], seeds).images[0]
        return images

    unchanged = towers(batch["pixels"], batch["tokens"], SEEDS).images[0]
    assert torch.equal(embedded(dropped, SEEDS), unchanged)
    assert not torch.equal(embedded(int(kept[0, 0]), SEEDS), unchanged)
    assert not torch.equal(embedded(dropped, None), towers(batch["pixels"], batch["tokens"]).images[0])


def test_micro_batches_see_the_same_patches(start: Path) -> None:
    grads = []
    for size in (None, 3):
        section = small_section(patch_dropout=0.5, micro_batch_size=size)
        state = small_state(start, section)
        backward(state.towers, batch_with_seeds(), section)
        parameters = state.model.named_parameters()
        grads.append({name: parameter.grad for name, parameter in parameters})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-6)


def test_compiled_layers_see_the_same_patches(start: Path) -> None:
    losses = []
    for is_compiled in (False, True):
        section = small_section(patch_dropout=0.5)
        state = small_state(start, section)
        assert isinstance(state.towers, DualEncoder)
        if is_compiled:
            state.towers.compile_towers(backend="eager")
        losses.append(train_step(state, batch_with_seeds(), section).metrics()["loss"])
    all_patches = train_step(small_state(start, small_section()), small_batch(), small_section())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[0] != pytest.approx(all_patches.metrics()["loss"], rel=1e-5)
