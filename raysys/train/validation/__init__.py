"""Validation during training: metrics of checkpoints, and early stopping."""
