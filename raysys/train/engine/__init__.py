"""A model made ready to train: what is frozen, how it is wrapped, what updates it."""

from raysys.train.engine.engine import Engine, make_engine, open_accelerator

__all__ = ["Engine", "make_engine", "open_accelerator"]
