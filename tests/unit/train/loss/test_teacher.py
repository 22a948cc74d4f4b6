"""The loss of a teacher and its gradients, compared with autograd on the formula as it is written."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raysys.config.schema import TeacherConfig
from raysys.train.loss import teacher_loss


def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Seven unit vectors, the teacher's vectors (the third is missing), and a head."""
    generator = torch.Generator().manual_seed(1)
    images, vectors = (
        torch.nn.functional.normalize(torch.randn(7, n, generator=generator), dim=-1) for n in (5, 4)
    )
    vectors[2] = 0.0
    return images, vectors, torch.randn(4, 5, generator=generator)


@pytest.mark.parametrize("tile_rows", [2, 100])
@pytest.mark.parametrize(("regression", "relational"), [(1.0, 0.0), (0.0, 1.0), (2.0, 3.0)])
def test_value_and_gradients_equal_autograd(regression: float, relational: float, tile_rows: int) -> None:
    images, vectors, head = rows()
    section = TeacherConfig(embeddings="t", regression_weight=regression, relational_weight=relational)
    loss, image_grads, head_grads = teacher_loss(images, vectors, head, section, tile_rows=tile_rows)

    images.requires_grad_()
    head.requires_grad_()
    present = [0, 1, 3, 4, 5, 6]
    student, teacher = images[present], vectors[present]
    cosines = torch.nn.functional.cosine_similarity(student @ head.T, teacher)
    difference = student @ student.T - teacher @ teacher.T
    expected = regression * (1 - cosines).mean() + relational * difference.square().mean()
    expected_images, expected_head = torch.autograd.grad(expected, [images, head], allow_unused=True)

    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(image_grads, expected_images)
    torch.testing.assert_close(
        head_grads, expected_head if expected_head is not None else torch.zeros_like(head)
    )
    assert not image_grads[2].any()


def test_batch_without_a_teacher_has_no_loss() -> None:
    images, vectors, head = rows()
    section = TeacherConfig(embeddings="t")
    loss, image_grads, head_grads = teacher_loss(
        images, torch.zeros_like(vectors), head, section, tile_rows=4
    )
    assert float(loss) == 0.0
    assert not image_grads.any()
    assert not head_grads.any()
