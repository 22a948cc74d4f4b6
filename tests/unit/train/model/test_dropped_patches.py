"""`train.patch_dropout`: a step sees only the patches that a photo keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from raysys.encoder.patch_dropout import kept_patches
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.step import backward, train_step
from tests.unit.train.small_model import IMAGE, build_small_model, small_batch, small_section, small_state

SEEDS = torch.arange(6) + 100


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_model(tmp_path_factory.mktemp("start") / "tiny")


def batch_with_seeds() -> dict[str, Tensor]:
    return {**small_batch(), "patch_seeds": SEEDS}


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
