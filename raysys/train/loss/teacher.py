"""The loss of a teacher: embeddings of photos that predict the teacher's vectors, and have its similarities.

Two terms, each a mean over the rows of the global batch that have a teacher's vector:
- regression: 1 - cosine of a linear function of the embedding (the head) and the teacher's vector;
- relational: squared differences between the cosines of two photos by the model and by the teacher, over all
  pairs of the global batch (after Park et al. 2019, Relational Knowledge Distillation).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from raysys.config.schema import TeacherConfig
from raysys.train.loss.exchange import gather_rows, world_size


@torch.no_grad()
def teacher_loss(
    images: Float[Tensor, "b d"],
    vectors: Float[Tensor, "b k"],
    head: Float[Tensor, "k d"],
    section: TeacherConfig,
    *,
    tile_rows: int,
) -> tuple[Float[Tensor, ""], Float[Tensor, "b d"], Float[Tensor, "k d"]]:
    """This worker's part of the loss, and the gradients of the global loss: of `images`, and of `head`.

    All are before `train.teacher.weight`. `images` are unit vectors; a row of `vectors` with only zeros has
    no teacher and weight 0. A collective call; every worker passes equally many rows, and gets the same
    gradient of the head. The relational term compares `tile_rows` rows with all at a time.
    """
    # The stream has 16-bit vectors: their length is 1 within 0.1 %.
    vectors = torch.nn.functional.normalize(vectors.float(), dim=-1)
    all_images, all_vectors = gather_rows(torch.cat([images, vectors], dim=1)).split(
        [images.shape[1], vectors.shape[1]], dim=1
    )
    all_weights = all_vectors.any(dim=1).to(images)
    num_rows = all_weights.sum().clamp(min=1.0)
    weights = vectors.any(dim=1).to(images)

    predicted = images @ head.T
    lengths = predicted.norm(dim=1, keepdim=True).clamp(min=1e-12)
    predicted = predicted / lengths
    cosines = (predicted * vectors).sum(dim=1, keepdim=True)
    share = section.regression_weight * weights[:, None] / num_rows
    loss = (share * (1.0 - cosines)).sum()
    predicted_grads = -share / lengths * (vectors - cosines * predicted)
    image_grads = predicted_grads @ head
    head_grads = predicted_grads.T @ images
    if world_size() > 1:
        dist.all_reduce(head_grads)

    factor = section.relational_weight / num_rows.square()
    for first in range(0, len(images), tile_rows):
        rows = slice(first, first + tile_rows)
        difference = images[rows] @ all_images.T - vectors[rows] @ all_vectors.T
        difference *= weights[rows, None] * all_weights
        loss = loss + factor * difference.square().sum()
        # 2 from the square, and 2 because every row is also a column, in part of other workers.
        image_grads[rows] += 4.0 * factor * (difference @ all_images)
    return loss, image_grads, head_grads
