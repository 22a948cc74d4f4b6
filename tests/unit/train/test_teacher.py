"""A run's teacher in steps and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from raysys.config.schema import TeacherConfig, TrainConfig
from raysys.train.model import TrainState, make_train_state
from raysys.train.step import backward, train_step
from tests.unit.train.small_model import (
    IMAGE,
    build_small_model,
    exported_weights,
    small_batch,
    small_section,
    small_state,
)

DIMENSIONS = 3
TEACHER = TeacherConfig(embeddings="unused", weight=2.0, head_learning_rate=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parallel": "fsdp"}, "teacher cannot be combined with parallel 'fsdp'"),
        ({"frozen_image_layers": "all"}, "teacher trains the image tower"),
        (
            {"teacher": {"embeddings": "t", "regression_weight": 0, "relational_weight": 0}},
            "both 0; raise one",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate({"teacher": {"embeddings": "t"}, **changes})


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_model(tmp_path_factory.mktemp("start") / "tiny")


def taught_section(**changes: Any) -> TrainConfig:
    return small_section(teacher=TEACHER, **changes)


def taught_state(start: Path, section: TrainConfig) -> TrainState:
    accelerator = small_state(start, small_section()).accelerator
    return make_train_state(str(start), IMAGE, section, 8, accelerator, teacher_dimensions=DIMENSIONS)


def taught_batch(seed: int = 3) -> dict[str, Tensor]:
    """The fourth sample was skipped, and the teacher lacks the second item."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(6, DIMENSIONS, generator=generator), dim=-1)
    vectors[[1, 3]] = 0.0
    return {**small_batch(seed), "teacher": vectors.half()}


def test_loss_and_gradients_are_the_sums_of_both_losses(start: Path) -> None:
    state, plain = taught_state(start, taught_section()), small_state(start, small_section())
    assert state.teacher_head is not None
    losses = backward(state.towers, taught_batch(), taught_section(), None, state.teacher_head)
    plain_loss = backward(plain.towers, small_batch(), small_section())["loss"]
    assert float(losses["loss"]) == pytest.approx(float(plain_loss + 2.0 * losses["teacher_loss"]))

    batch, present = taught_batch(), [0, 2, 4, 5]
    plain_images = plain.towers(batch["pixels"], batch["tokens"]).images[present]
    head = state.teacher_head.weight.detach().requires_grad_()
    teacher = torch.nn.functional.normalize(batch["teacher"].float()[present], dim=-1)
    cosines = torch.nn.functional.cosine_similarity(plain_images @ head.T, teacher)
    difference = plain_images @ plain_images.T - teacher @ teacher.T
    loss = (1 - cosines).mean() + difference.square().mean()
    (2.0 * loss).backward()
    assert float(losses["teacher_loss"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(state.teacher_head.weight.grad, head.grad)
    for (name, got), expected in zip(state.model.named_parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_micro_batches_have_the_update_of_the_full_batch(start: Path, micro_batch_size: int) -> None:
    full, small = taught_state(start, taught_section()), taught_state(start, taught_section())
    expected = train_step(full, taught_batch(), taught_section()).metrics()
    got = train_step(small, taught_batch(), taught_section(micro_batch_size=micro_batch_size)).metrics()
    assert got == pytest.approx(expected, rel=1e-5)
    assert full.teacher_head is not None
    assert small.teacher_head is not None
    torch.testing.assert_close(small.teacher_head.weight, full.teacher_head.weight)


def test_restored_head_continues_bit_for_bit_and_is_not_exported(start: Path) -> None:
    section = taught_section(ema_decay=0.5)
    uninterrupted, saved, restored = (taught_state(start, section) for _ in range(3))
    losses = [train_step(uninterrupted, taught_batch(seed), section).metrics() for seed in range(4)]
    for seed in range(2):
        train_step(saved, taught_batch(seed), section)
    state = saved.state_dict()
    train_step(saved, taught_batch(9), section)  # must not change the copy in `state`
    restored.load_state_dict(state)
    assert [train_step(restored, taught_batch(seed), section).metrics() for seed in (2, 3)] == losses[2:]
    first, second = uninterrupted.state_dict(), restored.state_dict()
    assert torch.equal(first["teacher_head"]["weight"], second["teacher_head"]["weight"])
    weights = exported_weights(second)
    assert all(torch.equal(weights[name], value) for name, value in exported_weights(first).items())
    assert weights.keys() == small_state(start, small_section()).model.state_dict().keys()


def test_head_learns_the_teacher(start: Path) -> None:
    section = taught_section(learning_rate=1e-6)
    state = taught_state(start, section)
    losses = [train_step(state, taught_batch(), section).metrics()["teacher_loss"] for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]
