"""The model in training: frozen parts, distribution over workers, optimisers, and their state."""

from raysys.train.model.state import TrainState, make_train_state, open_accelerator

__all__ = ["TrainState", "make_train_state", "open_accelerator"]
