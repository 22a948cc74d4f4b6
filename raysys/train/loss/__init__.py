"""The sigmoid loss over the global batch, with its gradients, in memory that does not grow with it."""

from raysys.train.loss.exchange import gather_rows, loss_and_gradients, world_size
from raysys.train.loss.pairs import NO_CAPTION, Pairs, local_pairs, targets
from raysys.train.loss.tiles import Gradients, dense_loss

__all__ = [
    "NO_CAPTION",
    "Gradients",
    "Pairs",
    "dense_loss",
    "gather_rows",
    "local_pairs",
    "loss_and_gradients",
    "targets",
    "world_size",
]
