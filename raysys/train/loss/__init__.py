"""The sigmoid loss over the global batch with its gradients; memory does not grow with the batch's pairs."""

from raysys.train.loss.exchange import gather_rows, loss_and_gradients, world_size
from raysys.train.loss.pairs import NO_CAPTION, Pairs, labels_and_weights, local_pairs
from raysys.train.loss.teacher import teacher_loss
from raysys.train.loss.tiles import LossAndGradients, dense_loss, tiled_loss

__all__ = [
    "NO_CAPTION",
    "LossAndGradients",
    "Pairs",
    "dense_loss",
    "gather_rows",
    "labels_and_weights",
    "local_pairs",
    "loss_and_gradients",
    "teacher_loss",
    "tiled_loss",
    "world_size",
]
