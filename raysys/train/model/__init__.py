"""A model made ready to train: what is frozen, how it is wrapped, what updates it."""

from raysys.train.model.state import TrainState, make_train_state, open_accelerator

__all__ = ["TrainState", "make_train_state", "open_accelerator"]
