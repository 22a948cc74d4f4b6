"""Validation during training: metrics of checkpoints, early stopping, retention check, neighbour grids."""
